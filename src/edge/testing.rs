//! For tests: a router behind a real port of loopback, and requests to it.

use std::time::Duration;

use axum::Router;

/// A server that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) base: String,
    agent: ureq::Agent,
    _runtime: tokio::runtime::Runtime,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.body))
    }

    fn of(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        let mut response = result.unwrap();
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let (retry_after, content_type) = (header("retry-after"), header("content-type").unwrap_or_default());
        Answer { status: response.status().as_u16(), retry_after, content_type, body: response.body_mut().read_to_string().unwrap() }
    }
}

impl Running {
    pub(crate) fn start(router: Router) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30))).build();
        Running { base, agent: config.into(), _runtime: runtime }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Answer::of(self.agent.get(format!("{}{path}", self.base)).call())
    }

    pub(crate) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        Answer::of(self.agent.post(format!("{}{path}", self.base)).header("content-type", content_type).send(body))
    }

    /// The same, packed in a way that the header says.
    pub(crate) fn post_packed(&self, path: &str, content_type: &str, encoding: &str, body: &[u8]) -> Answer {
        let request = self.agent.post(format!("{}{path}", self.base)).header("content-type", content_type);
        Answer::of(request.header("content-encoding", encoding).send(body))
    }
}
