//! A small file system of its own: a tmpfs, which fills up, and becomes read-only, as any disk does.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says that this process may mount.
const MAY_MOUNT: &str = "LOADLINE_TEST_MAY_MOUNT";

/// Runs `test` where it may mount: here as root, else in a user namespace of its own, by running the test `name` of
/// this binary again. Where neither is allowed it fails.
pub(crate) fn with_mounts(name: &str, test: impl FnOnce()) {
    if rustix::process::geteuid().is_root() || std::env::var_os(MAY_MOUNT).is_some() {
        return test();
    }
    let again = Command::new("unshare")
        .args(["--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MAY_MOUNT, "yes")
        .status()
        .unwrap();
    assert!(again.success(), "{name} needs to mount a file system: run it as root, or allow user namespaces");
}

/// A mounted tmpfs. Dropping it takes it away.
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `mib` MiB at `path`, which is created.
    pub(crate) fn mount(path: &Path, mib: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "loadline-test"]).arg(path));
        SmallDisk { path: path.to_owned() }
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        for block in [vec![0; 64 * 1024], vec![0; 4096], vec![0; 1]] {
            while filler.write(&block).is_ok_and(|written| written > 0) {}
        }
    }

    /// Takes `mib` MiB of its room.
    pub(crate) fn take(&self, mib: usize) {
        fs::write(self.filler(), vec![0; mib * 1024 * 1024]).unwrap();
    }

    /// Makes room again.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, mib: u32) {
        run(Command::new("mount").args(["-o", &format!("remount,size={mib}m")]).arg(&self.path));
    }

    /// Lets nobody write to it any more.
    pub(crate) fn make_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path));
    }

    /// Lets everybody write to it again.
    pub(crate) fn make_writable(&self) {
        run(Command::new("mount").args(["-o", "remount,rw"]).arg(&self.path));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still runs on it must not keep it.
        drop(Command::new("umount").arg("--lazy").arg(&self.path).status());
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
