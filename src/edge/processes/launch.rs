//! Starts the process of an instance.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::document::FleetSpec;
use super::group::{IDENTITY, identity};
use super::procfs::{self, ProcessId};
use crate::model::TargetId;

/// What an instance is started as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) target: &'a TargetId,
    pub(crate) uid: &'a str,
    pub(crate) name: &'a str,
    pub(crate) port: Option<u16>,
    pub(crate) output: &'a Path,
}

/// Why a process could not be started, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CannotStart(pub(crate) String);

/// Starts it: in a process group of its own, so that no signal of a terminal reaches it; with its
/// identity in the environment; with its output appended to a file, so that it outlives Loadline.
pub(crate) fn start(spec: &FleetSpec, launch: Launch<'_>) -> Result<(Child, ProcessId), CannotStart> {
    let output = append_to(launch.output).map_err(|error| CannotStart(format!("its output cannot be written to {}: {error}", launch.output.display())))?;
    let errors = output.try_clone().map_err(|error| CannotStart(error.to_string()))?;
    let mut command = Command::new(program(&spec.command));
    if let Some(directory) = &spec.working_directory {
        if !directory.is_dir() {
            return Err(CannotStart(format!("spec.workingDirectory {} is not a directory", directory.display())));
        }
        command.current_dir(directory);
    }
    // What configures Loadline itself is not for its instances.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"LOADLINE_")) {
        command.env_remove(name);
    }
    command
        .args(spec.args.iter().map(|arg| fill_in(arg, launch)))
        .envs(spec.env.iter().map(|(name, value)| (name, fill_in(value, launch))))
        .env(IDENTITY, identity(launch.uid, launch.name))
        .env("LOADLINE_INSTANCE_NAME", launch.name)
        .env("LOADLINE_TARGET", launch.target.as_str())
        .env("LOADLINE_FLEET_UID", launch.uid)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0);
    if let Some(port) = launch.port {
        command.env("PORT", port.to_string());
    }
    let mut child = command.spawn().map_err(|error| {
        CannotStart(match error.kind() {
            io::ErrorKind::NotFound => format!("the command {} does not exist", spec.command),
            io::ErrorKind::PermissionDenied => format!("the command {} may not be run: {error}", spec.command),
            _ => format!("the command {} cannot be run: {error}", spec.command),
        })
    })?;
    // The process cannot be gone: it is this one's child and was not waited for.
    let pid = child.id();
    if let Some(stat) = i32::try_from(pid).ok().and_then(procfs::stat) {
        return Ok((child, stat.id));
    }
    // Without its identity it could not be found again: it ends, before another one is started in its place.
    drop(child.kill());
    drop(child.wait());
    Err(CannotStart(format!("/proc/{pid}/stat cannot be read; is /proc mounted, and are there file descriptors left?")))
}

/// A program with a slash is a path, taken from the directory in which Loadline runs.
fn program(command: &str) -> PathBuf {
    if command.contains('/') { std::path::absolute(command).unwrap_or_else(|_| PathBuf::from(command)) } else { PathBuf::from(command) }
}

fn fill_in(text: &str, launch: Launch<'_>) -> String {
    let port = launch.port.map(|port| port.to_string()).unwrap_or_default();
    text.replace("{port}", &port).replace("{instance}", launch.name)
}

fn append_to(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    File::options().create(true).append(true).open(path)
}

/// The lowest port of the range that no instance has and no other process listens on.
pub(crate) fn free_port(range: RangeInclusive<u16>, taken: impl Fn(u16) -> bool) -> Option<u16> {
    range.into_iter().find(|port| !taken(*port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_anyone_has_is_passed_over() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        assert_eq!(free_port(port..=port, |_| false), None);
        drop(other);
        assert_eq!(free_port(port..=port, |taken| taken == port), None);
        assert_eq!(free_port(port..=port, |_| false), Some(port));
    }
}
