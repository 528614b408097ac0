//! Policies of many targets that differ in nothing but whose they are.

use std::collections::VecDeque;

use super::{Policy, Problem, resolve_spec_json};
use crate::model::TargetId;

/// So many different specs are remembered, those that came last.
const MOST: usize = 8;

/// Resolves one announced spec after the other. One that is one of those before but for the name of its target is not read again: a process that takes over has thousands of them.
#[derive(Default)]
pub struct Alike(VecDeque<Read>);

/// A spec that was read: what stands in it before the name of its target and behind it, and its policy.
struct Read {
    before: String,
    behind: String,
    policy: Policy,
}

impl Alike {
    /// As [`resolve_spec_json`].
    ///
    /// # Errors
    /// As it has.
    pub fn resolve(&mut self, spec: &str, target: &TargetId) -> Result<Policy, Vec<Problem>> {
        if let Some(policy) = self.0.iter().find_map(|read| read.with(spec, target)) {
            return Ok(policy);
        }
        let policy = resolve_spec_json(spec, target)?;
        self.0.extend(Read::of(spec, &policy));
        if self.0.len() > MOST {
            self.0.pop_front();
        }
        Ok(policy)
    }
}

impl Read {
    /// Where the name stands there once, and every text as itself: without an escape a name has one spelling.
    fn of(spec: &str, policy: &Policy) -> Option<Read> {
        let quoted = format!("\"{}\"", policy.target.name());
        let (before, behind) = spec.split_once(&quoted)?;
        let is_found = !behind.contains(&quoted) && !spec.contains('\\');
        is_found.then(|| Read { before: format!("{before}\""), behind: format!("\"{behind}"), policy: policy.clone() })
    }

    /// The policy of a spec that differs in the name alone.
    fn with(&self, spec: &str, target: &TargetId) -> Option<Policy> {
        let name = spec.strip_prefix(&*self.before)?.strip_suffix(&*self.behind)?;
        let is_its = name == target.name() && is_itself(name) && target.kind() == self.policy.target.kind();
        is_its.then(|| Policy { target: target.clone(), ..self.policy.clone() })
    }
}

/// Whether JSON has this text between its quotes as it is.
fn is_itself(text: &str) -> bool {
    text.chars().all(|letter| letter >= ' ' && letter != '"' && letter != '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> String {
        format!(
            r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"{name}"}},"replicas":{{"max":9}},"metrics":[{{"name":"shop","threshold":{{"scaleOutAbove":1}}}}]}}"#
        )
    }

    fn target(name: &str) -> TargetId {
        TargetId::new("prod", "Deployment", name).unwrap()
    }

    /// What comes of it is what reading it gives, whatever came before.
    #[test]
    fn it_is_as_if_each_was_read() {
        let other_kind = TargetId::new("prod", "StatefulSet", "web").unwrap();
        let other_place = TargetId::new("test", "Deployment", "web").unwrap();
        let texts =
            |name: &str| [(spec(name), target(name)), (spec(name), target("other")), (spec(name), other_kind.clone()), (spec(name), other_place.clone())];
        let mut all: Vec<(String, TargetId)> = ["web", "api", "shop", "max", "we", "webb"].iter().flat_map(|name| texts(name)).collect();
        // Names and texts that JSON spells in another way, or that would be more than a name.
        all.push((spec(r"w\u0065b"), target("web")));
        all.push((spec("web").replace("shop", r"sh\u006fp"), target("web")));
        for metric in ["web", "api"] {
            all.push((spec(r"w\u0065b").replace("shop", metric), target(metric)));
        }
        let more = r#"x","role":"ApiServer"#;
        all.push((spec(more), target(more)));
        all.push((spec("web").replace('9', "0"), target("web")));
        all.push((spec("web").replace("scaleOutAbove\":1", "scaleOutAbove\":2"), target("web")));
        for first in &all {
            for second in &all {
                let mut alike = Alike::default();
                for (spec, target) in [first, second, first] {
                    assert_eq!(alike.resolve(spec, target), resolve_spec_json(spec, target), "{spec} of {target} after {first:?}");
                }
            }
        }
    }

    #[test]
    fn it_is_not_read_again_where_the_name_alone_differs() {
        let read = |name: &str| resolve_spec_json(&spec(name), &target(name)).ok().and_then(|policy| Read::of(&spec(name), &policy));
        let with = |name: &str| read("web").and_then(|read| read.with(&spec(name), &target(name))).map(|policy| policy.target);
        assert_eq!((with("api"), with("shop-2")), (Some(target("api")), Some(target("shop-2"))));
        assert!(read("shop").is_none(), "it stands there twice");
        let mut alike = Alike::default();
        let other = |name: &str, max: usize| spec(name).replace('9', &max.to_string());
        for max in 1..=MOST + 1 {
            alike.resolve(&other("web", max), &target("web")).unwrap();
        }
        let known = |max: usize| alike.0.iter().any(|read| read.with(&other("api", max), &target("api")).is_some());
        assert_eq!((1..=MOST + 2).filter(|max| known(*max)).collect::<Vec<_>>(), (2..=MOST + 1).collect::<Vec<_>>());
    }
}
