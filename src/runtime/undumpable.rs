//! A process whose memory is not for others: no core is dumped, and nobody without privileges can read it.
//!
//! What holds: a crash leaves no core file, and a process of the same user can neither attach to us nor read
//! `/proc/PID/mem`. Whoever is root on the machine can.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process one, and all that it starts as far as core files go.
///
/// # Errors
/// When the system refuses.
pub fn forbid_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
