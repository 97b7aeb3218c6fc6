//! The binary: arguments in, exit code out. Everything else is the library's.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Memory is cleared when it is given back: secrets pass through buffers of libraries, which clear nothing themselves.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    bellwether::cli::main()
}
