//! A schema registry with the interface of Confluent's: the schemas of records that others frame by its ids, and Loadline's own schemas in it.
//!
//! A record is looked at before it is handed to a stage ([`LookUp`]): its id is looked for on the topic `schemas`, where a newer Loadline says how it writes, then the registry is
//! asked for it, once, and what it answers is kept ([`Schemas::learn`]). An id never stands for another schema, so an answer holds. That there is no such id is an answer too: the record is a dead letter then, and the id is asked for again
//! with a later record. No answer, or one that no registry gives, is none: the record waits, and what comes after it in its partition; other partitions go on, and so
//! does whatever has ids that are known. What a registry answers wrongly is that id's affair alone; where it does not answer at all it is left alone for a while.
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
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body, RequestBuilder};

use super::events::SchemaRegistry;
use crate::log::kafka::LookUp;
use crate::log::{Lacking, LogError, RawRecord, Topic};
use crate::model::spelling::{on_one_line, shorten};
use crate::runtime::clock::Stopwatch;
use crate::wire::registry_id;
use crate::wire::schemas::{self, RecordType, RegistryId, Schemas};

/// How long an answer may take: records wait for it, and so does everything that this member of the group reads.
const DEADLINE: Duration = Duration::from_secs(2);
/// The same where a schema is registered: nothing else waits for that, and a registry that was just started takes its time.
const REGISTERS_WITHIN: Duration = Duration::from_secs(15);
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

/// Why a registry cannot be asked as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadSetting {
    /// Which of `kafka.registry.…` it is.
    pub of: &'static str,
    /// What is wrong with it, without what is secret.
    pub reason: String,
}

/// Why a registry does not answer a question, or refuses a thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No answer: the same may succeed later.
    #[error("the schema registry at {url} cannot be asked: {reason}")]
    Unreachable {
        /// Where it is.
        url: String,
        /// What stands in the way.
        reason: String,
    },
    /// An answer that no registry gives, or that says of a fault: the same may succeed later.
    #[error("the schema registry at {url} cannot be asked: {reason}")]
    Faulty {
        /// Where it is.
        url: String,
        /// What it answered.
        reason: String,
        /// Its status.
        status: u16,
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

/// Learns what other releases of the installation said of how they write, where there is anything new.
pub type Learn = Box<dyn Fn() -> Result<(), LogError> + Send + Sync>;

/// A registry.
pub struct Registry {
    url: String,
    agent: Agent,
    installation: Option<Learn>,
    /// The header that says who asks. Never told.
    authorization: Option<String>,
    asked: Mutex<Asked>,
    trouble: SchemaRegistry,
}

/// What came of asking.
#[derive(Default)]
struct Asked {
    /// Schemas by which nothing can be read, and when that was said.
    unusable: BTreeMap<RegistryId, Stopwatch>,
    /// That it did not answer.
    away: Option<Failure>,
    /// That it did not answer as a registry, of a schema.
    failed: BTreeMap<RegistryId, Failure>,
}

/// What failed for now.
struct Failure {
    since: Stopwatch,
    /// For so long it is left alone.
    pause: Duration,
    reason: String,
}

impl Failure {
    /// After another one.
    fn again(before: Option<&Failure>, reason: String) -> Failure {
        Failure { since: Stopwatch::start(), pause: before.map_or(AGAIN_FIRST, |before| (before.pause * 2).min(AGAIN_LAST)), reason }
    }

    /// Why it is left alone now, where it is.
    fn stands(&self) -> Option<&str> {
        (self.since.elapsed() < self.pause).then_some(self.reason.as_str())
    }
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
    /// The registry at a URL, asked as the user of `credentials` (`USER:PASSWORD`); over https its certificate must be signed by one of these authorities (PEM), or by one that the
    /// system trusts.
    ///
    /// # Errors
    /// [`BadSetting`].
    pub fn new(url: &str, credentials: Option<&str>, authorities: Option<&[u8]>) -> Result<Self, BadSetting> {
        let setting = |of, reason: &str| Err(BadSetting { of, reason: reason.to_owned() });
        let Some((scheme, rest)) = url.split_once("://") else {
            return setting("url", "a schema registry is named by a URL, as in http://registry:8081");
        };
        if rest.split('/').next().unwrap_or_default().contains('@') {
            // Nothing of it is told: it has a password.
            return setting("url", "the URL of a schema registry is read by many: write its user and password into a file, for kafka.registry.credentials");
        }
        if !["http", "https"].contains(&scheme) {
            return setting("url", "the URL of a schema registry begins with http:// or https://");
        }
        if scheme == "http" && authorities.is_some() {
            return setting(
                "ca",
                "authorities sign the certificate of a registry that is reached over https://, and this one is over http://: leave kafka.registry.ca out, or see the URL",
            );
        }
        let roots = match authorities {
            None => RootCerts::PlatformVerifier,
            Some(pem) => match certificates(pem) {
                Some(authorities) => RootCerts::from(authorities),
                None => {
                    return setting(
                        "ca",
                        "the authorities of a schema registry are a file of certificates in PEM, each from BEGIN CERTIFICATE to END CERTIFICATE (kafka.registry.ca)",
                    );
                }
            },
        };
        let authorization = match credentials.map(str::trim) {
            Some(who) if who.contains(':') && !who.contains(char::is_control) => Some(format!("Basic {}", STANDARD.encode(who))),
            Some(_) => return setting("credentials", "the user of a schema registry is written as one line, USER:PASSWORD"),
            None => None,
        };
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build();
        let agent = Agent::config_builder().http_status_as_error(false).max_redirects(0).tls_config(tls).build().into();
        let (url, installation) = (url.trim_end_matches('/').to_owned(), None);
        Ok(Registry { url, agent, installation, authorization, asked: Mutex::default(), trouble: SchemaRegistry::default() })
    }

    /// Looks for a schema among what the releases of the installation say first.
    #[must_use]
    pub fn beside(self, installation: Learn) -> Self {
        Registry { installation: Some(installation), ..self }
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
        self.get::<Vec<String>>("/subjects", DEADLINE).map(drop).map_err(|error| match error {
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
    fn schema(&self, id: RegistryId) -> Result<Result<String, String>, RegistryError> {
        let held: Held = match id {
            // A registry counts up to there, and has no such page.
            RegistryId::Id(id) if i32::try_from(id).is_err() => return Err(RegistryError::Unknown { url: self.url.clone() }),
            RegistryId::Id(id) => match self.get(&format!("/schemas/ids/{id}"), DEADLINE) {
                // No words of a registry, and yet one answers there.
                Err(RegistryError::Faulty { status: 404, .. }) if self.check().is_ok() => return Err(RegistryError::Unknown { url: self.url.clone() }),
                answer => answer?,
            },
            RegistryId::Guid(_) => match self.get(&format!("/schemas/guids/{id}"), DEADLINE) {
                // One that has no such page, and is a registry.
                Err(RegistryError::Faulty { status: 404, .. }) if self.check().is_ok() => {
                    return Ok(Err(format!(
                        "the registry at {} cannot be asked by a GUID: let the producer frame by ids, or take a registry that can",
                        self.url
                    )));
                }
                answer => answer?,
            },
        };
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
            RegistryError::Unreachable { .. } | RegistryError::Faulty { .. } => LogError::Retry { reason: error.to_string() },
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
        match self.get::<Rule>(&rule, REGISTERS_WITHIN) {
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

    fn get<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, RegistryError> {
        self.answer(path, self.who(self.agent.get(format!("{}{path}", self.url)), within).call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> Result<T, RegistryError> {
        self.answer(path, self.who(self.agent.post(format!("{}{path}", self.url)), REGISTERS_WITHIN).header("content-type", MEDIA_TYPE).send(body.to_string()))
    }

    fn put(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value, RegistryError> {
        self.answer(path, self.who(self.agent.put(format!("{}{path}", self.url)), REGISTERS_WITHIN).header("content-type", MEDIA_TYPE).send(body.to_string()))
    }

    /// As whom it is asked, and how long the answer may take.
    fn who<B>(&self, request: RequestBuilder<B>, within: Duration) -> RequestBuilder<B> {
        let request = request.config().timeout_global(Some(within)).build().header("accept", MEDIA_TYPE);
        match &self.authorization {
            Some(who) => request.header("authorization", who),
            None => request,
        }
    }

    fn answer<T: DeserializeOwned>(&self, what: &str, answer: Result<Response<Body>, ureq::Error>) -> Result<T, RegistryError> {
        let unreachable = |reason: String| RegistryError::Unreachable { url: self.url.clone(), reason };
        let mut answer = answer.map_err(|error| unreachable(error.to_string()))?;
        let status = answer.status().as_u16();
        let faulty = |reason: String| RegistryError::Faulty { url: self.url.clone(), reason, status };
        let text = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string().map_err(|error| faulty(error.to_string()))?;
        if (200..300).contains(&status) {
            return serde_json::from_str(&text)
                .map_err(|_| faulty(format!("its answer to {what} is none of a registry; the URL may lack a path, as /apis/ccompat/v7 of Apicurio")));
        }
        let problem: Option<Problem> = serde_json::from_str(&text).ok();
        let said = problem.as_ref().and_then(|problem| problem.message.clone()).unwrap_or_default();
        match (status, problem) {
            // That there is no such page is no answer of a registry.
            (404, Some(Problem { error_code, .. })) if NOT_FOUND.contains(&error_code) => Err(RegistryError::Unknown { url: self.url.clone() }),
            (409 | 422, _) => Err(RegistryError::Refused { url: self.url.clone(), what: what.to_owned(), reason: said }),
            (401 | 403, _) => Err(faulty(format!("it answers {status}: it wants another user (kafka.registry.credentials), or allows this one less"))),
            (404, _) => Err(faulty(format!("there is nothing at {what}: the URL may lack a path, as /apis/ccompat/v7 of Apicurio"))),
            _ => Err(faulty(format!("it answers {status} {}", shorten(&said)))),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that it is known what a registry's name of a schema stands for.
    fn know(&self, schemas: &Schemas, id: impl Into<RegistryId>) -> Result<(), String> {
        let id = id.into();
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
        if let Some(reason) = [asked.away.as_ref(), asked.failed.get(&id)].into_iter().flatten().find_map(Failure::stands) {
            return Err(reason.to_owned());
        }
        let learnt = match self.learn(schemas, id) {
            Ok(None) => {
                asked.failed.remove(&id);
                return Ok(());
            }
            Ok(Some(learnt)) => learnt,
            Err((error, is_away)) => {
                let reason = format!("schema {id}: {error}");
                self.trouble.unreachable(&reason);
                if is_away {
                    asked.away = Some(Failure::again(asked.away.as_ref(), reason.clone()));
                } else {
                    let failure = Failure::again(asked.failed.get(&id), reason.clone());
                    if asked.failed.len() >= MOST_UNUSABLE {
                        asked.failed.clear();
                    }
                    asked.failed.insert(id, failure);
                }
                return Err(reason);
            }
        };
        if asked.away.take().is_some() | asked.failed.remove(&id).is_some() {
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

    /// A schema, or why nothing can be read by it, as the registry says; `None` where the installation said it itself. Else why that cannot be told now, and whether that concerns
    /// all schemas.
    fn learn(&self, schemas: &Schemas, id: RegistryId) -> Result<Option<Result<String, String>>, (String, bool)> {
        if let Some(installation) = &self.installation {
            installation().map_err(|error| (format!("the topic schemas cannot be read: {error}"), true))?;
            if matches!(schemas.of_id(id), Some(Ok(_))) {
                return Ok(None);
            }
        }
        match self.schema(id) {
            Ok(schema) => Ok(Some(schema)),
            Err(RegistryError::Unknown { url }) => Ok(Some(Err(format!("the registry at {url} does not know it")))),
            Err(error) => Err((error.to_string(), matches!(error, RegistryError::Unreachable { .. }))),
        }
    }
}

/// The certificates of a file; `None` where it has none, or something is wrong with one.
fn certificates(pem: &[u8]) -> Option<Vec<Certificate<'static>>> {
    let certificates = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    certificates.collect::<Result<Vec<_>, _>>().ok().filter(|certificates| !certificates.is_empty())
}

impl LookUp for Registry {
    fn look_up(&self, topic: Topic, record: &RawRecord) -> Result<(), Lacking> {
        // Elsewhere nobody but Loadline writes, and it writes in its own framing.
        if !matches!(topic, Topic::Metrics | Topic::Control) {
            return Ok(());
        }
        let Some(id) = registry_id(&record.value) else { return Ok(()) };
        let known = schemas::held().map_err(ToString::to_string).and_then(|schemas| self.know(schemas, id));
        known.map_err(|reason| Lacking {
            what: format!("the schema {id} of a registry"),
            reason,
            mend: "see that the registry runs, can be reached and answers this user (kafka.registry)".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
