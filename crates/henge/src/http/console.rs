//! The files of the console, from the node's own binary. They hold no data: what the console shows its visitor's browser asks the node
//! for, as any client does.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::problem::{Code, Problem};
use super::service::{Outcome, Whole};

/// Where they are.
const PREFIX: &str = "/console/";

/// A page that comes from here loads and asks nothing from elsewhere, runs nothing that is not in these files, and is shown in no other's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// The media types of all files.
pub(crate) const MEDIA_TYPES: [&str; 4] = [HTML, SCRIPT, STYLE, IMAGE];

macro_rules! files {
    ($($name:literal $media_type:ident;)*) => {
        /// Each file: its name, what it is, and its bytes.
        static FILES: &[(&str, &str, &[u8])] = &[$((
            $name,
            $media_type,
            include_bytes!(concat!("../../../../console/", $name)),
        ),)*];
    };
}

files! {
    "index.html" HTML;
    "bytes.js" SCRIPT;
    "causes.js" SCRIPT;
    "chart.js" SCRIPT;
    "client.js" SCRIPT;
    "console.css" STYLE;
    "dom.js" SCRIPT;
    "favicon.svg" IMAGE;
    "format.js" SCRIPT;
    "history.js" SCRIPT;
    "item.js" SCRIPT;
    "item_dialogs.js" SCRIPT;
    "keyboard.js" SCRIPT;
    "login.js" SCRIPT;
    "main.js" SCRIPT;
    "members.js" SCRIPT;
    "poll.js" SCRIPT;
    "ring.js" SCRIPT;
    "table.js" SCRIPT;
    "theme.js" SCRIPT;
    "views/browser.js" SCRIPT;
    "views/config.js" SCRIPT;
    "views/events.js" SCRIPT;
    "views/keys.js" SCRIPT;
    "views/metrics.js" SCRIPT;
    "views/misses.js" SCRIPT;
    "views/overview.js" SCRIPT;
    "views/ring.js" SCRIPT;
    "views/slow.js" SCRIPT;
    "views/within.js" SCRIPT;
}

/// `GET /console`: the page has relative links, which need the slash.
pub(super) fn redirect() -> Whole {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static(PREFIX));
    response
}

/// `GET /console/{file}`.
pub(super) fn file(path: &str, asked: &HeaderMap) -> Outcome {
    let name = path.strip_prefix(PREFIX).unwrap_or_default();
    let name = if name.is_empty() { "index.html" } else { name };
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, media_type, bytes) = found.ok_or_else(|| {
        Problem::new(
            Code::RouteNotFound,
            "the console has no such file; it begins at /console/",
        )
    })?;
    // Another version of the node has others under the same names.
    let tag = format!("\"{:08x}\"", crc32c::crc32c(bytes));
    let known = asked.get_all(header::IF_NONE_MATCH).iter();
    let is_known = known
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(&tag));
    let mut response = if is_known {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Full::new(Bytes::from_static(bytes)))
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ] {
        headers.insert(name, value);
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_file_of_the_console_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../console");
        let mut found = BTreeSet::new();
        for folder in ["", "views/"] {
            let entries = std::fs::read_dir(root.join(folder)).expect("the console's folder");
            for entry in entries {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("a name");
                if entry.file_type().expect("a type").is_file() {
                    found.insert(format!("{folder}{name}"));
                }
            }
        }
        let served: BTreeSet<String> = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(served, found);
    }

    #[test]
    fn nothing_in_it_leads_elsewhere_or_is_inline() {
        for (name, media_type, bytes) in FILES {
            let text = std::str::from_utf8(bytes).expect("it is text");
            // An identifier of XML is no address.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for banned in [
                "https://",
                "http://",
                "new Function",
                "document.write",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
            ] {
                assert!(!text.contains(banned), "{name}: {banned}");
            }
            if *media_type == HTML {
                for banned in ["style=", "onclick", "onload", "<style", "javascript:"] {
                    assert!(!text.contains(banned), "{name}: {banned}");
                }
            }
        }
    }
}
