//! The PMM client programs of the lab; see `standins::client`.

fn main() -> std::process::ExitCode {
    standins::client::main(std::env::args().collect())
}
