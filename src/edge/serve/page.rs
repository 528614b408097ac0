//! The pages for people: the fleet, a target, its signals. Rendered here; kept up to date by [`super::live`]; usable without a script.
//!
//! Nothing is loaded from elsewhere: style, script and the chart library are in the program. No style or script stands in the markup,
//! so that the Content-Security-Policy can forbid all that does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};

use super::Services;
use crate::edge::api::{Problem, address};
use crate::model::{TargetId, Timestamp};

mod charts;
mod decision;
mod fleet;
mod signals;
mod target;
mod text;

/// The files of the pages: name, type, content.
const ASSETS: [(&str, &str, &str); 5] = [
    ("page.css", "text/css; charset=utf-8", include_str!("assets/page.css")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("assets/page.js")),
    ("uplot.js", "text/javascript; charset=utf-8", include_str!("assets/uplot-1.6.32.min.js")),
    ("uplot.css", "text/css; charset=utf-8", include_str!("assets/uplot-1.6.32.min.css")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// All pages.
pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/", get(fleet::page))
        .route("/live", get(fleet::live))
        .route("/targets/{namespace}/{kind}/{name}", get(target::page))
        .route("/targets/{namespace}/{kind}/{name}/live", get(target::live))
        .route("/targets/{namespace}/{kind}/{name}/signals", get(signals::page))
        .route("/assets/{name}", get(asset))
}

/// What tells a file's content from any other's: as its entity tag, and in the links to it, so that it may be kept for good.
fn version(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The versions of [`ASSETS`], in their order.
static VERSIONS: LazyLock<[String; ASSETS.len()]> = LazyLock::new(|| ASSETS.map(|(_, _, text)| version(text)));

/// The address of a file, with its version.
fn asset_link(name: &str) -> String {
    let version = ASSETS.iter().position(|(known, ..)| *known == name).map_or("", |i| VERSIONS[i].as_str());
    format!("/assets/{name}?v={version}")
}

async fn asset(Path(name): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let Some((i, (_, kind, text))) = ASSETS.iter().enumerate().find(|(_, (known, ..))| *known == name) else {
        return Problem::new(StatusCode::NOT_FOUND, "there is no such file", "see /").at(name).into_response();
    };
    let version = VERSIONS[i].as_str();
    let tag = format!("\"{version}\"");
    let held = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let same = held.map(|value| value.trim().trim_start_matches("W/")).any(|value| value == tag || value == "*");
    let mut response = if same { StatusCode::NOT_MODIFIED.into_response() } else { text.into_response() };
    let keep = if uri.query() == Some(format!("v={version}").as_str()) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let more = response.headers_mut();
    more.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Another release has other files under these names: only the version in the address tells which.
    more.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        more.insert(header::ETAG, tag);
    }
    response
}

/// The address of a target's page.
fn target_page(target: &TargetId) -> String {
    format!("/targets/{}", address(target))
}

/// A whole page. `live` is where its messages come from, `json` where what it shows is for programs.
fn whole(title: &str, at: Timestamp, live: Option<&str>, json: &str, charts: bool, body: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Loadline" }
                link rel="icon" type="image/svg+xml" href=(asset_link("icon.svg"));
                @if charts { link rel="stylesheet" href=(asset_link("uplot.css")); }
                link rel="stylesheet" href=(asset_link("page.css"));
                @if charts { script src=(asset_link("uplot.js")) defer {} }
                script src=(asset_link("page.js")) defer {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header.top {
                    a.brand href="/" { "Loadline" }
                    p #updated .updated data-at=(at.as_millis()) { "as of " (text::clock(at)) }
                }
                p #lost .lost role="alert" hidden {}
                main #main tabindex="-1" data-live=[live] { (body) }
                footer.foot {
                    p { "All times are UTC. This page as JSON: " a href=(json) { (json) } }
                }
            }
        }
    };
    Html(page.into_string())
}

/// A problem as a page.
struct Trouble(Problem, Timestamp);

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let Trouble(problem, at) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = html! {
            h1 { (problem.title) }
            p { (problem.mend) }
            @if !problem.place.is_empty() { p.fine { "Where: " (problem.place) } }
            p { a href="/" { "All targets" } }
        };
        (status, whole(&problem.title, at, None, "/api/v1/targets", false, &body)).into_response()
    }
}
