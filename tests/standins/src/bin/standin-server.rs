//! One program for every role inside the stand-in PMM Server image; the role is the name it is started under, or its first argument.

use std::path::Path;

fn main() {
    let mut args: Vec<String> = std::env::args().collect();
    let name = args
        .first()
        .and_then(|a| Path::new(a).file_name())
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let role = if name.starts_with("standin-server") && args.len() > 1 {
        args.remove(1)
    } else {
        name
    };
    std::process::exit(standins::server::main(&role, args.get(1..).unwrap_or_default()));
}
