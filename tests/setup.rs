//! `tools/setup`, and what starts servers for the tests, on machines that lack things: they say each one, and install it or print the one command to run.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A machine whose programs are only those of one folder.
struct Machine {
    home: tempfile::TempDir,
}

impl Machine {
    fn new(user: u32) -> Machine {
        let machine = Machine { home: tempfile::tempdir().unwrap() };
        std::fs::create_dir(machine.bin()).unwrap();
        for tool in ["sh", "dirname", "sed", "cut", "sort", "head", "uname", "env"] {
            let real = ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists()).unwrap();
            symlink(real, machine.bin().join(tool)).unwrap();
        }
        machine.program("id", &format!("echo {user}"));
        machine.program("apt-get", &format!("echo \"apt-get $*\" >> {}", machine.home.path().join("installed").display()));
        machine
    }

    fn bin(&self) -> PathBuf {
        self.home.path().join("bin")
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.bin().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The exit code, what was said, and what was installed.
    fn set_up(&self) -> (Option<i32>, String, String) {
        self.set_up_with(Path::new(env!("CARGO_MANIFEST_DIR")), &[])
    }

    /// As [`Machine::set_up`], for the tests of the project in `root`.
    fn set_up_with(&self, root: &Path, flags: &[&str]) -> (Option<i32>, String, String) {
        self.run(&root.join("tools/setup"), flags)
    }

    /// The same of any script.
    fn run(&self, script: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(script);
        command.env_clear().env("PATH", self.bin()).env("HOME", self.home.path()).env("LOADLINE_TEST_TOOLS", self.home.path().join("tools"));
        command.args(arguments);
        let output = loop {
            match command.output() {
                // Where it was written a moment ago: a test beside this one begot a process meanwhile, which holds it open until it is another program.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                output => break output.unwrap(),
            }
        };
        let installed = std::fs::read_to_string(self.home.path().join("installed")).unwrap_or_default();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), installed)
    }
}

#[test]
fn without_root_it_prints_the_one_command_and_touches_nothing() {
    let (code, said, installed) = Machine::new(1000).set_up();
    assert_eq!((code, installed.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("installing a C compiler") && said.contains("    sudo sh -c 'apt-get update"), "{said}");
}

#[test]
fn as_root_it_installs_what_is_missing_and_says_each_thing() {
    let machine = Machine::new(0);
    machine.program("cargo", "echo cargo 999.0.0");
    let (code, said, installed) = machine.set_up();
    assert_eq!(code, Some(0), "{said}");
    for thing in ["installing a C compiler", "installing OpenSSL's headers", "installing make"] {
        assert!(said.contains(thing), "{said}");
    }
    for package in ["gcc libc6-dev", "libssl-dev pkg-config", "recommends make"] {
        assert!(installed.contains(package), "{installed}");
    }
    assert!(!installed.contains("faketime"), "what only tests need is not asked of who runs it: {installed}");
}

#[test]
fn a_rust_that_is_too_old_is_replaced_or_the_command_is_printed() {
    let machine = Machine::new(0);
    for there in ["cc", "pkg-config", "make", "mktemp", "rm"] {
        machine.program(there, "echo /dev/null");
    }
    machine.program("cargo", "echo cargo 1.0.0");
    machine.program("curl", "exit 6");
    let (code, said, _) = machine.set_up();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("installing rustup") && said.contains("could not fetch the installer") && said.contains("https://sh.rustup.rs | sh"), "{said}");
}

#[test]
fn where_all_is_there_it_says_nothing() {
    let machine = Machine::new(1000);
    for there in ["cc", "pkg-config", "make"] {
        machine.program(there, "exit 0");
    }
    machine.program("cargo", "echo cargo 999.0.0");
    assert_eq!(machine.set_up(), (Some(0), String::new(), String::new()));
}

/// What only tests need is installed for tests only, once, and again when the lock file changes.
#[test]
fn prometheus_and_the_browser_and_its_driver_are_installed_for_tests_alone() {
    let machine = Machine::new(0);
    for there in ["cc", "pkg-config", "make"] {
        machine.program(there, "exit 0");
    }
    machine.program("cargo", "echo cargo 999.0.0");
    for tool in ["mkdir", "cp", "cmp"] {
        let real = ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists()).unwrap();
        symlink(real, machine.bin().join(tool)).unwrap();
    }
    let root = machine.home.path().join("project");
    for folder in ["tools", "tests/page"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["tools/setup", "rust-toolchain.toml", "Cargo.toml", "tests/page/package.json", "tests/page/package-lock.json"] {
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), root.join(file)).unwrap();
    }
    let (code, said, _) = machine.set_up_with(&root, &[]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "without --tests nothing is missing");
    let (_, said, _) = machine.set_up_with(&root, &["--kafka"]);
    assert!(said.contains("Java and Maven") && !said.contains("faketime"), "a broker needs no more: {said}");
    let (_, said, installed) = machine.set_up_with(&root, &["--tests"]);
    for thing in [
        "installing faketime",
        "installing zsh and fish",
        "installing mandoc",
        "installing prometheus",
        "installing Java and Maven",
        "installing Python with venv",
        "installing Chromium",
        "installing Node.js and npm",
    ] {
        assert!(said.contains(thing), "{said}");
    }
    assert!(
        installed.contains("recommends prometheus") && installed.contains("recommends chromium") && installed.contains("recommends nodejs npm"),
        "{installed}"
    );
    assert!(["recommends faketime", "recommends zsh fish", "recommends mandoc"].iter().all(|package| installed.contains(package)), "{installed}");
    assert!(said.contains("could not install them; run this once") && said.contains("npm ci --prefix target/page-tests"), "{said}");

    for there in ["faketime", "zsh", "fish", "mandoc", "prometheus", "promtool", "java", "mvn", "python3", "chromium", "node"] {
        machine.program(there, "exit 0");
    }
    machine.program("npm", "echo \"npm $*\"");
    let (code, said, _) = machine.set_up_with(&root, &["--tests"]);
    assert!(code == Some(0) && said.contains("npm ci --prefix target/page-tests --ignore-scripts"), "{said}");
    assert_eq!(machine.set_up_with(&root, &["--tests"]).1, "", "the second time all is there");
    std::fs::write(root.join("tests/page/package-lock.json"), "{}").unwrap();
    assert!(machine.set_up_with(&root, &["--tests"]).1.contains("npm ci"), "another lock file, other packages");
    let (code, said, _) = machine.set_up_with(&root, &["--test"]);
    assert!(code == Some(2) && said.contains("--tests"), "{said}");
}

/// How long the first build takes is said before it, and only then.
#[test]
fn the_first_build_is_announced_once() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/first-build");
    let said = |file: &Path| String::from_utf8(Command::new(&script).arg(file).output().unwrap().stdout).unwrap();
    assert!(said(Path::new("/nowhere/loadgen")).starts_with("The first build takes about "));
    assert_eq!(said(&script), "");
}

/// What starts a server for the tests says what it lacks, and how to get it.
#[test]
fn a_server_of_the_tests_that_cannot_be_had_says_how_to_get_it() {
    for (script, what) in [("kafka.sh", "Kafka"), ("registry.sh", "Apicurio Registry")] {
        let machine = Machine::new(1000);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env").join(script);
        let refused = |reason: &str| {
            let (code, said, _) = machine.run(&script, &["install"]);
            assert!(code == Some(1) && said.contains(reason), "{code:?}: {said}");
        };
        refused("install Java 17 or later (on Debian: apt-get install default-jre-headless)");
        machine.program("java", "echo 'openjdk version \"11.0.25\" 2024-10-15' >&2");
        refused("java is version 11 here");
        machine.program("java", "echo 'openjdk version \"21.0.5\" 2024-10-15' >&2");
        refused(&format!("there is no mvn, which fetches {what} from Maven Central: install it (on Debian: apt-get install maven)"));
    }
    let machine = Machine::new(1000);
    let (code, said, _) = machine.run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/python.sh"), &["install"]);
    assert!(code == Some(1) && said.contains("there is no python3: install Python 3.9 or later (on Debian: apt-get install python3-venv)"), "{code:?}: {said}");
}
