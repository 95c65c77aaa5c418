//! One program for every PMM client program; the role is the name it is started under.
fn main() {}
