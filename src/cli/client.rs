//! Asks a running Loadline over HTTP.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::edge::api::{Problem, Status};
use crate::model::TargetId;
use crate::model::json;
use crate::model::spelling::nearest;

/// How long an answer may take. `status` and `why` take milliseconds; a decision from long ago some seconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most bytes of an answer: the status of the most targets that a process takes.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;

/// Where the running Loadline is.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Where Loadline listens
    #[arg(long, value_name = "URL", env = "LOADLINE_SERVER", default_value = "http://127.0.0.1:8080")]
    pub server: String,
}

/// A way to a running Loadline.
#[derive(Debug)]
pub struct Client {
    base: String,
    agent: ureq::Agent,
}

impl Client {
    /// A client of the server that the arguments name; `HOST:PORT` alone means HTTP.
    pub fn new(args: &ServerArgs) -> Self {
        Client::within(args, DEADLINE)
    }

    /// As [`Client::new`]; an answer may take `deadline`.
    pub fn within(args: &ServerArgs, deadline: Duration) -> Self {
        let base = args.server.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let config = ureq::Agent::config_builder().timeout_global(Some(deadline)).http_status_as_error(false).build();
        Client { base, agent: config.into() }
    }

    /// Gets a document.
    ///
    /// # Errors
    /// Where the server cannot be reached (with how to start it), or answers with a problem.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.answer(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// Posts a document.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let body = serde_json::to_vec(body).context("failed to write the request")?;
        self.answer(self.agent.post(format!("{}{path}", self.base)).header("content-type", "application/json").send(&body[..]))
    }

    /// The target that a person means: its whole name, or as much of its end as is unique.
    ///
    /// # Errors
    /// Where none or several could be meant, or the server cannot be reached.
    pub fn target(&self, named: &str) -> anyhow::Result<TargetId> {
        if let Ok(target) = named.parse() {
            return Ok(target);
        }
        let status: Status = self.get("/api/v1/status")?;
        let names: Vec<TargetId> = status.targets.into_iter().map(|t| t.target).collect();
        resolve(named, &names)
    }

    fn answer<T: DeserializeOwned>(&self, result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<T> {
        let mut response = result.map_err(|error| match error {
            ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => anyhow!(
                "Loadline cannot be reached at {} ({error}); start it with `loadline run`, or say where it listens with --server or LOADLINE_SERVER",
                self.base
            ),
            error => anyhow!("asking {} failed: {error}", self.base),
        })?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .with_context(|| format!("failed to read the answer of {}", self.base))?;
        if status.is_success() {
            return json::read(&text)
                .with_context(|| format!("{} answered what this version cannot read; is it a Loadline, and of the same release?", self.base));
        }
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) if problem.mend.is_empty() => bail!("{}", problem.title),
            Ok(problem) => bail!("{}; {}", problem.title, problem.mend),
            Err(_) => bail!("{} answered {status}; is it a Loadline?", self.base),
        }
    }
}

/// Whether `named` is the name of a target, or its end from a slash on.
pub(super) fn is_meant(target: &TargetId, named: &str) -> bool {
    target.as_str().strip_suffix(named).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// The one of `names` that `named` is, or is the end of.
pub(super) fn resolve(named: &str, names: &[TargetId]) -> anyhow::Result<TargetId> {
    let meant: Vec<&TargetId> = names.iter().filter(|target| is_meant(target, named)).collect();
    match meant.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let near = nearest(named, names.iter().map(TargetId::name)).and_then(|near| names.iter().find(|t| t.name() == near));
            let near = near.or_else(|| nearest(named, names.iter().map(TargetId::as_str)).and_then(|near| names.iter().find(|t| t.as_str() == near)));
            let mend = match near {
                Some(near) => format!("did you mean {near}?"),
                None => "write the whole name, namespace/Kind/name; `loadline status` of a running one lists the targets".to_owned(),
            };
            bail!("there is no target {named}; {mend}")
        }
        several => bail!("{named} could be {}; write more of the name", several.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_may_be_named_by_its_end_while_that_is_unique() {
        let names: Vec<TargetId> = ["prod/Deployment/api", "test/Deployment/api", "local/ProcessFleet/storefront"].iter().map(|n| n.parse().unwrap()).collect();
        assert_eq!(resolve("storefront", &names).unwrap().as_str(), "local/ProcessFleet/storefront");
        assert_eq!(
            resolve("Deployment/api", &names).unwrap_err().to_string(),
            "Deployment/api could be prod/Deployment/api or test/Deployment/api; write more of the name"
        );
        assert_eq!(resolve("storefornt", &names).unwrap_err().to_string(), "there is no target storefornt; did you mean local/ProcessFleet/storefront?");
    }

    #[test]
    fn a_server_that_is_not_there_says_how_to_start_it() {
        // A port that was free a moment ago, and that nothing listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = Client::new(&ServerArgs { server: format!("127.0.0.1:{port}") }).get::<Status>("/api/v1/status").unwrap_err().to_string();
        assert!(error.contains("start it with `loadline run`"), "{error}");
    }
}
