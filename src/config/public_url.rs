//! The URL as a provider knows it: for schemes that sign it, which the request alone does not show behind a proxy.

use http::Uri;

use crate::document::{At, Problems};

/// `public_url` of the server or of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicUrl {
    /// Without a slash at its end.
    base: String,
    /// Whether it is a whole URL, with its path, rather than where all paths begin.
    is_whole: bool,
}

impl PublicUrl {
    /// The URL of a request with this path and query.
    pub fn of(&self, path: &str, query: Option<&str>) -> String {
        let path = if self.is_whole { "" } else { path };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{path}{query}", self.base)
    }
}

/// Reads the URL of a server (an origin), or of a source (an origin, or the whole URL of its endpoint).
pub(super) fn read(problems: &Problems, at: &At<String>, of_source: bool) -> Option<PublicUrl> {
    let uri = at.value.parse::<Uri>().ok();
    let fits = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("https" | "http"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
            && !at.value.contains('#')
    };
    let Some(uri) = uri.filter(fits) else {
        problems.error(
            &at.place,
            format!("`public_url`: \"{}\" is not the URL of an endpoint", at.value),
            "write it as the provider has it, without a query: \"https://hooks.example.com\"",
        );
        return None;
    };
    let is_whole = of_source && uri.path() != "/";
    if !is_whole && uri.path() != "/" {
        problems.error(
            &at.place,
            "`server.public_url` has a path",
            "write the beginning that all sources share, such as \"https://hooks.example.com\"; a source may set its own",
        );
        return None;
    }
    let base = if is_whole { at.value.clone() } else { at.value.trim_end_matches('/').to_owned() };
    Some(PublicUrl { base, is_whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

    fn url(text: &str, of_source: bool) -> Result<String, String> {
        let problems = Problems::default();
        let mut section = document::parse(&problems, "a.toml", &format!("u = \"{text}\"\n"));
        let at = section.read::<String>("u").expect("a text");
        let read = read(&problems, &at, of_source);
        section.finish();
        read.map(|url| url.of("/hooks/a", Some("x=1"))).ok_or_else(|| problems.render(false))
    }

    #[test]
    fn the_path_of_the_request_is_used_unless_the_url_is_whole() {
        assert_eq!(url("https://a.example", false).as_deref(), Ok("https://a.example/hooks/a?x=1"));
        assert_eq!(url("https://a.example:8443/", true).as_deref(), Ok("https://a.example:8443/hooks/a?x=1"));
        assert_eq!(url("https://a.example/in/b", true).as_deref(), Ok("https://a.example/in/b?x=1"));
        assert_eq!(url("https://a.example/in/b/", true).as_deref(), Ok("https://a.example/in/b/?x=1"));
        for wrong in ["a.example", "ftp://a.example", "https://u:p@a.example", "https://a.example/?x=1"] {
            assert!(url(wrong, true).is_err_and(|text| text.contains("without a query")), "{wrong}");
        }
        assert!(url("https://a.example/in", false).is_err_and(|text| text.contains("that all sources share")));
    }
}
