//! `--target` of a command that reads signals as they come: all names are known at the end alone.

use std::collections::BTreeSet;

use super::Unusable;
use super::client::{is_meant, resolve};
use crate::model::TargetId;

/// One target of those that are read, by its whole name or by its end; or all.
pub(super) struct Only {
    named: Option<String>,
    seen: BTreeSet<TargetId>,
}

impl Only {
    pub(super) fn new(named: Option<&str>) -> Self {
        Only { named: named.map(str::to_owned), seen: BTreeSet::new() }
    }

    /// Whether this one is meant.
    pub(super) fn admits(&mut self, target: &TargetId) -> bool {
        let Some(named) = &self.named else { return true };
        if !self.seen.contains(target) {
            self.seen.insert(target.clone());
        }
        is_meant(target, named)
    }

    /// That one was meant, and no more than one.
    ///
    /// # Errors
    /// Names those that there are.
    pub(super) fn check(&self) -> Result<(), Unusable> {
        let Some(named) = &self.named else { return Ok(()) };
        let seen: Vec<TargetId> = self.seen.iter().cloned().collect();
        resolve(named, &seen).map(drop).map_err(|error| Unusable(format!("--target {named}: of what was read, {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(named: &str) -> (Vec<&'static str>, Result<(), String>) {
        let targets = ["prod/Deployment/api", "test/Deployment/api", "prod/Deployment/web", "prod/Deployment/grand-api"];
        let mut only = Only::new(Some(named));
        let meant = targets.into_iter().filter(|target| only.admits(&target.parse().unwrap())).collect();
        (meant, only.check().map_err(|error| error.to_string()))
    }

    #[test]
    fn one_target_is_meant_by_its_name_or_by_the_end_of_it_and_else_it_is_said_which_there_are() {
        assert_eq!(read("prod/Deployment/api"), (vec!["prod/Deployment/api"], Ok(())));
        assert_eq!(read("web"), (vec!["prod/Deployment/web"], Ok(())));
        let (meant, checked) = read("api");
        assert_eq!(meant, ["prod/Deployment/api", "test/Deployment/api"]);
        assert_eq!(checked.unwrap_err(), "--target api: of what was read, api could be prod/Deployment/api or test/Deployment/api; write more of the name");
        let (meant, checked) = read("prod/Deployment/wep");
        assert_eq!(meant, [""; 0]);
        assert_eq!(
            checked.unwrap_err(),
            "--target prod/Deployment/wep: of what was read, there is no target prod/Deployment/wep; did you mean prod/Deployment/web?"
        );
    }
}
