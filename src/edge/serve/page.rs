//! The pages for people: the fleet, a target, its signals. Rendered here; kept up to date by [`super::live`]; usable without a script.
//!
//! Nothing is loaded from elsewhere: style, script and the chart library are in the program. No style or script stands in the markup,
//! so that the Content-Security-Policy can forbid all that does.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
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

async fn asset(Path(name): Path<String>) -> Response {
    let Some((_, kind, text)) = ASSETS.iter().find(|(known, ..)| *known == name) else {
        return Problem::new(StatusCode::NOT_FOUND, "there is no such file", "see /").at(name).into_response();
    };
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Another release has other files under these names.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The address of a target's page.
fn target_page(target: &TargetId) -> String {
    format!("/targets/{}", address(target))
}

/// A whole page. `live` is where its messages come from.
fn whole(title: &str, at: Timestamp, live: Option<&str>, charts: bool, body: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Loadline" }
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
                @if charts { link rel="stylesheet" href="/assets/uplot.css"; }
                link rel="stylesheet" href="/assets/page.css";
                @if charts { script src="/assets/uplot.js" defer {} }
                script src="/assets/page.js" defer {}
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
                    p { "All times are UTC. As JSON: " a href="/api/v1/status" { "/api/v1/status" } }
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
            p { a href="/" { "All targets" } }
        };
        (status, whole(&problem.title, at, None, false, &body)).into_response()
    }
}
