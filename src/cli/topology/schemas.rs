//! Loadline's schemas in a schema registry.

use std::io::Write;

use serde_json::json;

use super::super::{Output, Unusable, table, tell};
use super::{DIFFERS, FITS, print};
use crate::edge::registry::{Registry, RegistryError};
use crate::wire::schemas::RecordType;

/// Registers all of them, and prints their ids. What is refused is told, and the others are registered all the same.
pub(super) fn register(out: &mut dyn Write, registry: &Registry, output: Output) -> anyhow::Result<u8> {
    let (mut registered, mut refused) = (Vec::new(), false);
    for &record in RecordType::ALL {
        match registry.register(record) {
            Ok(id) => registered.push((record.full_name(), id)),
            Err(error @ RegistryError::Refused { .. }) => {
                refused = true;
                tell(&error.to_string());
            }
            Err(error) => return Err(Unusable(error.to_string()).into()),
        }
    }
    match output {
        Output::Json => {
            let ids: Vec<_> = registered.iter().map(|(subject, id)| json!({ "subject": subject, "id": id })).collect();
            print::json(out, &json!(ids))?;
        }
        Output::Text => table::write(out, &["SUBJECT", "ID"], registered.into_iter().map(|(subject, id)| vec![subject, id.to_string()]))?,
    }
    Ok(if refused { DIFFERS } else { FITS })
}
