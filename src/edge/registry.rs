//! A schema registry with the interface of Confluent's: the schemas of records that others frame by its ids, and Loadline's own schemas in it.
//!
//! A record is looked at before it is handed to a stage ([`LookUp`]): its id is asked for once, and what the registry answers is kept ([`Schemas::learn`]).
//! An id never stands for another schema, so an answer holds. That there is no such id is an answer too: the record is a dead letter then, and the id is asked for again
//! with a later record. No answer, or one that no registry gives, is none: the record waits, and what comes after it in its partition; other partitions go on, and so
//! does whatever has ids that are known.
//!
//! [`Schemas::learn`]: crate::wire::schemas::Schemas::learn

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder};

use super::events::SchemaRegistry;
use crate::log::kafka::LookUp;
use crate::log::{LogError, RawRecord, Topic};
use crate::model::spelling::{on_one_line, shorten};
use crate::runtime::clock::Stopwatch;
use crate::wire::registry_id;
use crate::wire::schemas::{self, RecordType, Schemas};

/// How long an answer may take: records wait for it, and so does everything that this member of the group reads.
const DEADLINE: Duration = Duration::from_secs(2);
/// After a failure the registry is left alone for so long, twice as long each time.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_LAST: Duration = Duration::from_secs(15);
/// An id by which nothing can be read is asked for again with a record that comes so much later: the registry may have got it meanwhile.
const UNUSABLE_FOR: Duration = Duration::from_secs(10);
/// So many of them are remembered.
const MOST_UNUSABLE: usize = 10_000;
/// The largest answer that is read.
const LARGEST_ANSWER: u64 = 4 * 1024 * 1024;
/// The codes of the interface for what does not exist: a subject, a version, a schema, a rule.
const NOT_FOUND: [u64; 4] = [40_401, 40_402, 40_403, 40_408];
/// The rules by which a newer schema reads what was written by the last one.
const READS_THE_LAST: [&str; 4] = ["BACKWARD", "BACKWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"];
/// What the interface speaks.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Why a registry cannot be used, or refuses a thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A setting that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// No answer, or none that a registry gives: the same may succeed later.
    #[error("the schema registry at {url} cannot be asked: {reason}")]
    Unreachable {
        /// Where it is.
        url: String,
        /// What stands in the way.
        reason: String,
    },
    /// It has no such thing.
    #[error("the schema registry at {url} does not know it")]
    Unknown {
        /// Where it is.
        url: String,
    },
    /// It says no.
    #[error("the schema registry at {url} refuses {what}: {reason}")]
    Refused {
        /// Where it is.
        url: String,
        /// What was asked.
        what: String,
        /// Its own words.
        reason: String,
    },
}

/// A registry.
pub struct Registry {
    url: String,
    agent: Agent,
    /// The header that says who asks. Never told.
    authorization: Option<String>,
    asked: Mutex<Asked>,
    trouble: SchemaRegistry,
}

/// What came of asking.
#[derive(Default)]
struct Asked {
    /// Ids by which nothing can be read, and when that was said.
    unusable: BTreeMap<u32, Stopwatch>,
    /// Since when it did not answer, for how long it is left alone, and why.
    failed: Option<(Stopwatch, Duration, String)>,
}

/// A schema as the registry has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

/// What the interface says of an error.
#[derive(Deserialize)]
struct Problem {
    error_code: u64,
    message: Option<String>,
}

/// By its place alone: who asks is a secret.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Registry {
    /// The registry at a URL, asked as the user of `credentials` (`USER:PASSWORD`).
    ///
    /// # Errors
    /// [`RegistryError::Setting`], without what is secret.
    pub fn new(url: &str, credentials: Option<&str>) -> Result<Self, RegistryError> {
        let setting = |reason: &str| Err(RegistryError::Setting(reason.to_owned()));
        let Some((scheme, rest)) = url.split_once("://") else {
            return setting("a schema registry is named by a URL, as in http://registry:8081");
        };
        if rest.split('/').next().unwrap_or_default().contains('@') {
            // Nothing of it is told: it has a password.
            return setting("the URL of a schema registry is read by many: write its user and password into a file, for kafka.registry.credentials");
        }
        match scheme {
            "http" => {}
            "https" => {
                return setting(
                    "this Loadline speaks to a schema registry over http:// alone, not https://; let a proxy on this machine speak TLS, and name that one",
                );
            }
            _ => return setting("the URL of a schema registry begins with http://"),
        }
        let authorization = match credentials.map(str::trim) {
            Some(who) if who.contains(':') && !who.contains(char::is_control) => Some(format!("Basic {}", STANDARD.encode(who))),
            Some(_) => return setting("the user of a schema registry is written as one line, USER:PASSWORD"),
            None => None,
        };
        let agent = Agent::config_builder().timeout_global(Some(DEADLINE)).http_status_as_error(false).max_redirects(0).build().into();
        Ok(Registry { url: url.trim_end_matches('/').to_owned(), agent, authorization, asked: Mutex::default(), trouble: SchemaRegistry::default() })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// That a registry answers there, and answers this user.
    ///
    /// # Errors
    /// [`RegistryError::Unreachable`].
    pub fn check(&self) -> Result<(), RegistryError> {
        self.get::<Vec<String>>("/subjects").map(drop).map_err(|error| match error {
            RegistryError::Unknown { url } => RegistryError::Unreachable { url, reason: "there is no list of subjects".to_owned() },
            error => error,
        })
    }

    /// Looks for it, and tells where it cannot be asked.
    pub fn begin(&self) {
        if let Err(error) = self.check() {
            self.trouble.unreachable(&error.to_string());
        }
    }

    /// The text of a schema, or why nothing of Avro can be read by it.
    fn schema(&self, id: u32) -> Result<Result<String, String>, RegistryError> {
        let held: Held = self.get(&format!("/schemas/ids/{id}"))?;
        Ok(match held.schema_type.as_deref() {
            Some(other) if other != "AVRO" => Err(format!("it is of {}, not Avro", shorten(other))),
            _ if !held.references.is_empty() => Err("it refers to other schemas: register it as a whole".to_owned()),
            _ => Ok(held.schema),
        })
    }

    /// Registers this release's schema of a message, under the name of its record (Confluent's `RecordNameStrategy`); the same one again has the same id. The subject is first
    /// set to BACKWARD, where nothing as strict holds: a newer schema must read what was written by the last one.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Refused`] names the subject, what is not compatible, and the mend.
    pub fn register(&self, record: RecordType) -> Result<u32, RegistryError> {
        self.register_as(&record.full_name(), record.schema_json())
    }

    /// As [`Registry::register`], for whoever writes by the id.
    ///
    /// # Errors
    /// [`LogError::Retry`] where it cannot be asked now, [`LogError::Fatal`] where it refuses.
    pub fn id_of(&self, record: RecordType) -> Result<u32, LogError> {
        self.register(record).map_err(|error| match error {
            RegistryError::Unreachable { .. } => LogError::Retry { reason: error.to_string() },
            error => LogError::Fatal { reason: error.to_string() },
        })
    }

    /// As [`Registry::register`], of any subject.
    ///
    /// # Errors
    /// As there.
    pub fn register_as(&self, subject: &str, schema_json: &str) -> Result<u32, RegistryError> {
        #[derive(Deserialize)]
        struct Registered {
            id: u32,
        }
        #[derive(Deserialize)]
        struct Verdict {
            is_compatible: bool,
            /// Confluent's words.
            #[serde(default)]
            messages: Vec<String>,
            /// Apicurio's.
            reason: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Rule {
            compatibility_level: String,
        }
        let body = json!({ "schemaType": "AVRO", "schema": schema_json });
        let rule = format!("/config/{subject}");
        match self.get::<Rule>(&rule) {
            // Whoever set a stricter one keeps it.
            Ok(Rule { compatibility_level }) if READS_THE_LAST.contains(&compatibility_level.as_str()) => {}
            Ok(_) | Err(RegistryError::Unknown { .. }) => drop(self.put(&rule, &json!({ "compatibility": READS_THE_LAST[0] }))?),
            Err(error) => return Err(error),
        }
        match self.post::<Verdict>(&format!("/compatibility/subjects/{subject}/versions/latest?verbose=true"), &body) {
            Ok(Verdict { is_compatible: true, .. }) | Err(RegistryError::Unknown { .. }) => {}
            Ok(Verdict { messages, reason, .. }) => return Err(self.refused(subject, &reason.unwrap_or_else(|| messages.join("; ")))),
            Err(error) => return Err(error),
        }
        match self.post::<Registered>(&format!("/subjects/{subject}/versions"), &body) {
            Ok(Registered { id }) => Ok(id),
            Err(RegistryError::Refused { reason, .. }) => Err(self.refused(subject, &reason)),
            Err(error) => Err(error),
        }
    }

    fn refused(&self, subject: &str, why: &str) -> RegistryError {
        let why = if why.is_empty() { "it does not say why" } else { why };
        RegistryError::Refused {
            url: self.url.clone(),
            what: format!("Loadline's schema of {subject}"),
            reason: format!(
                "{}; the last version of this subject was registered by somebody else, or by a Loadline that this one does not follow: delete the subject where no reader needs it, or name \
                 another registry",
                on_one_line(why)
            ),
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RegistryError> {
        self.answer(path, self.who(self.agent.get(format!("{}{path}", self.url))).call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> Result<T, RegistryError> {
        self.answer(path, self.who(self.agent.post(format!("{}{path}", self.url))).header("content-type", MEDIA_TYPE).send(body.to_string()))
    }

    fn put(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value, RegistryError> {
        self.answer(path, self.who(self.agent.put(format!("{}{path}", self.url))).header("content-type", MEDIA_TYPE).send(body.to_string()))
    }

    fn who<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let request = request.header("accept", MEDIA_TYPE);
        match &self.authorization {
            Some(who) => request.header("authorization", who),
            None => request,
        }
    }

    fn answer<T: DeserializeOwned>(&self, what: &str, answer: Result<Response<Body>, ureq::Error>) -> Result<T, RegistryError> {
        let unreachable = |reason: String| RegistryError::Unreachable { url: self.url.clone(), reason };
        let mut answer = answer.map_err(|error| unreachable(error.to_string()))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string().map_err(|error| unreachable(error.to_string()))?;
        if (200..300).contains(&status) {
            return serde_json::from_str(&text)
                .map_err(|_| unreachable(format!("its answer to {what} is none of a registry; the URL may lack a path, as /apis/ccompat/v7 of Apicurio")));
        }
        let problem: Option<Problem> = serde_json::from_str(&text).ok();
        let said = problem.as_ref().and_then(|problem| problem.message.clone()).unwrap_or_default();
        match (status, problem) {
            // That there is no such page is no answer of a registry.
            (404, Some(Problem { error_code, .. })) if NOT_FOUND.contains(&error_code) => Err(RegistryError::Unknown { url: self.url.clone() }),
            (409 | 422, _) => Err(RegistryError::Refused { url: self.url.clone(), what: what.to_owned(), reason: said }),
            (401 | 403, _) => Err(unreachable(format!("it answers {status}: it wants another user (kafka.registry.credentials), or allows this one less"))),
            (404, _) => Err(unreachable(format!("there is nothing at {what}: the URL may lack a path, as /apis/ccompat/v7 of Apicurio"))),
            _ => Err(unreachable(format!("it answers {status} {}", shorten(&said)))),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that it is known what an id stands for.
    fn know(&self, schemas: &Schemas, id: u32) -> Result<(), String> {
        if matches!(schemas.of_id(id), Some(Ok(_))) {
            return Ok(());
        }
        // One at a time: the next one finds the answer.
        let mut asked = self.asked();
        match schemas.of_id(id) {
            Some(Ok(_)) => return Ok(()),
            Some(Err(_)) if asked.unusable.get(&id).is_some_and(|said| said.elapsed() < UNUSABLE_FOR) => return Ok(()),
            _ => {}
        }
        if let Some((since, pause, reason)) = &asked.failed
            && since.elapsed() < *pause
        {
            return Err(reason.clone());
        }
        let learnt = match self.schema(id) {
            Ok(schema) => schema,
            Err(RegistryError::Unknown { url }) => Err(format!("the registry at {url} does not know it")),
            Err(error) => {
                let reason = format!("schema {id}: {error}");
                let pause = asked.failed.as_ref().map_or(AGAIN_FIRST, |(_, pause, _)| (*pause * 2).min(AGAIN_LAST));
                asked.failed = Some((Stopwatch::start(), pause, reason.clone()));
                self.trouble.unreachable(&reason);
                return Err(reason);
            }
        };
        if asked.failed.take().is_some() {
            SchemaRegistry::answers(&self.url);
        }
        schemas.learn(id, learnt.as_deref().map_err(Clone::clone)).map_err(|error| error.to_string())?;
        if !matches!(schemas.of_id(id), Some(Ok(_))) {
            if asked.unusable.len() >= MOST_UNUSABLE {
                asked.unusable.clear();
            }
            asked.unusable.insert(id, Stopwatch::start());
        }
        Ok(())
    }
}

impl LookUp for Registry {
    fn look_up(&self, topic: Topic, record: &RawRecord) -> Result<(), String> {
        // Elsewhere nobody but Loadline writes, and it writes in its own framing.
        if !matches!(topic, Topic::Metrics | Topic::Control) {
            return Ok(());
        }
        let Some(id) = registry_id(&record.value) else { return Ok(()) };
        let schemas = schemas::held().map_err(ToString::to_string)?;
        self.know(schemas, id)
    }
}

#[cfg(test)]
mod tests;
