//! Where the program `loadline` is.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The program that was named, or the one beside this one, or the one in PATH.
pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        ensure!(named.is_file(), "the program {} is not there; build it with `cargo build`, or name another with --loadline", named.display());
        return std::path::absolute(named).context("the path of loadline");
    }
    let own = std::env::current_exe().context("find this program's own path")?;
    let beside = own.parent().map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = beside.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join("loadline")).find(|file| file.is_file());
    found.with_context(|| {
        format!("the program loadline is neither beside {} nor in PATH; build it with `cargo build`, or name it with --loadline", own.display())
    })
}
