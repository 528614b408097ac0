//! Names: of targets, metrics, instances and fleets. Cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::spelling::shorten;

/// The longest name that is taken, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than 253 bytes.
    #[error("{what} {name:?} must have 1 to 253 bytes, it has {bytes}")]
    Length {
        /// What the name is of.
        what: &'static str,
        /// The text, or its beginning.
        name: String,
        /// How many bytes it has.
        bytes: usize,
    },
    /// A control character or white space.
    #[error("{what} {name:?} must not have white space or control characters")]
    Character {
        /// What the name is of.
        what: &'static str,
        /// The text.
        name: String,
    },
    /// Not `namespace/Kind/name`.
    #[error("target \"{name}\" is not namespace/Kind/name, as in prod/Deployment/api-server")]
    NotATarget {
        /// The text.
        name: String,
    },
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(NameError::Length { what, name: shorten(name), bytes: name.len() });
    }
    // Nearly all names are of printable ASCII, which is seen without decoding them: names are read with every sample.
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain && name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(NameError::Character { what, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(name)?;
                // The empty one is one for all: many measurements have no instance.
                Ok($type(if name.is_empty() { Arc::default() } else { name.into() }))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What has replicas: `namespace/Kind/name`, e.g. `prod/Deployment/api-server`.
    TargetId,
    "target",
    |name| {
        check("target", name)?;
        // Of bytes: a search for a character takes longer than a name has.
        let mut parts = name.as_bytes().split(|byte| *byte == b'/');
        let whole = (0..3).all(|_| parts.next().is_some_and(|p| !p.is_empty())) && parts.next().is_none();
        if whole { Ok(()) } else { Err(NameError::NotATarget { name: name.to_owned() }) }
    }
);
name!(
    /// A metric's name, e.g. `cpu`.
    MetricName,
    "metric",
    |name| check("metric", name)
);
name!(
    /// An instance's name; empty for a measurement of the target as a whole.
    InstanceName,
    "instance",
    |name| if name.is_empty() { Ok(()) } else { check("instance", name) }
);
name!(
    /// A fleet's name: the set of targets that share budgets.
    FleetName,
    "fleet",
    |name| check("fleet", name)
);

/// The namespace of a `ProcessFleet`, and of the policy of one, where none is written: what runs on this machine.
pub const LOCAL_NAMESPACE: &str = "local";

impl TargetId {
    /// The target `namespace/kind/name`.
    ///
    /// # Errors
    /// [`NameError`] where a part is empty, has a slash, or all together are too long.
    pub fn new(namespace: &str, kind: &str, name: &str) -> Result<Self, NameError> {
        format!("{namespace}/{kind}/{name}").parse()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    /// Its name within namespace and kind.
    pub fn name(&self) -> &str {
        self.0.split('/').nth(2).unwrap_or_default()
    }
}

impl InstanceName {
    /// The instance of a measurement that no instance emits: the empty name.
    pub fn none() -> Self {
        InstanceName(Arc::default())
    }

    /// Whether this names no instance.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for InstanceName {
    fn default() -> Self {
        InstanceName::none()
    }
}

impl Default for FleetName {
    /// The fleet of a target whose policy names none.
    fn default() -> Self {
        FleetName("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever else is in a name: plain ASCII is looked at in another way than the rest.
    #[test]
    fn white_space_and_control_characters_are_no_part_of_a_name_and_all_else_is() {
        for around in ["ab", "äb"] {
            for c in (0..=0x100).filter_map(char::from_u32).chain(['\u{2003}', '\u{3000}', '名']) {
                let name = around.replacen('b', &c.to_string(), 1);
                let taken = name.parse::<MetricName>().is_ok();
                assert_eq!(taken, !c.is_whitespace() && !c.is_control(), "{name:?}");
            }
        }
    }
}
