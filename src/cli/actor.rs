//! Who runs a command, for the record of what it changes.
//!
//! The name is that of the effective uid, not `$USER`: that may be unset (cron, containers) or another's. It is what the
//! caller says of itself; nothing here is a proof.

use std::sync::mpsc::channel;
use std::time::Duration;

use nix::unistd::{Uid, User};

/// How long the name may take. Names may come from a directory service, which may be down when a count must be set all the same.
const NAME_WITHIN: Duration = Duration::from_secs(2);

/// The login name of the user that this process runs as; under sudo with the one who became it. A uid without a name is its number.
pub(super) fn of_this_process() -> String {
    let uid = Uid::effective();
    named(login(uid), uid.as_raw(), std::env::var("SUDO_USER").ok())
}

/// The login name of `uid`, where there is one and it is found in time. A look-up that takes longer ends with the process.
fn login(uid: Uid) -> Option<String> {
    let (send, found) = channel();
    std::thread::Builder::new().name("login name".to_owned()).spawn(move || drop(send.send(User::from_uid(uid).ok().flatten().map(|user| user.name)))).ok()?;
    found.recv_timeout(NAME_WITHIN).ok().flatten()
}

/// Says who it is.
fn named(login: Option<String>, uid: u32, sudo_of: Option<String>) -> String {
    let name = login.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("uid {uid}"));
    match sudo_of {
        Some(other) if !other.is_empty() && other != name => format!("{name} (sudo of {other})"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An audit wants the person, also where they became somebody else; a service without a name is not nobody.
    #[test]
    fn who_it_is_names_the_person() {
        let text = |text: &str| Some(text.to_owned());
        for (login, sudo_of, expected) in [
            (text("anna"), None, "anna"),
            (text("root"), text("anna"), "root (sudo of anna)"),
            (text("deploy"), text("anna"), "deploy (sudo of anna)"),
            (text("anna"), text("anna"), "anna"),
            (text("root"), text(""), "root"),
            (None, None, "uid 1234"),
            (None, text("anna"), "uid 1234 (sudo of anna)"),
        ] {
            assert_eq!(named(login, 1234, sudo_of), expected);
        }
    }

    /// As `id` says it; that writes the number where there is no name.
    #[test]
    fn the_name_is_that_of_the_effective_uid() {
        let said = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
        let uid = Uid::effective();
        assert_eq!(login(uid).unwrap_or_else(|| uid.to_string()), String::from_utf8(said).unwrap().trim());
        // A uid that nobody has.
        assert_eq!(login(Uid::from_raw(4_000_000_123)), None);
    }
}
