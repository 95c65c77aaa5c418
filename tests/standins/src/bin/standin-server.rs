//! One program for every role inside the stand-in PMM Server image; the role is the name it is started under.
fn main() {}
