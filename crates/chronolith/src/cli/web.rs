//! Flags of the HTTP API as browsers and proxies meet it, shared by `query` and `server`.

use chronolith_model::GoRegex;
use chronolith_query::http::{CrossOrigin, Prefixes};
use clap::Args;

/// Browsers and proxies.
#[derive(Args, Clone, Debug)]
pub(crate) struct WebArgs {
    /// Origins whose pages may call the API from a browser: a regular expression for the whole origin.
    #[arg(long = "web.cors.origin", default_value = ".*", value_parser = origin, value_name = "REGEX", help_heading = "Web")]
    cors_origin: GoRegexText,
    /// Send no CORS headers.
    #[arg(long = "web.disable-cors", help_heading = "Web")]
    disable_cors: bool,
    /// Path below which the query API is served; by default that of --web.external-prefix.
    #[arg(long = "web.route-prefix", default_value = "", value_name = "PATH", help_heading = "Web")]
    route_prefix: String,
    /// Path at which clients see it behind a proxy.
    #[arg(long = "web.external-prefix", default_value = "", value_name = "PATH", help_heading = "Web")]
    external_prefix: String,
    /// Header in which a proxy says what path it stripped; only a proxy that always sets it may be trusted.
    #[arg(long = "web.prefix-header", default_value = "", value_name = "HEADER", help_heading = "Web")]
    prefix_header: String,
}

/// A regular expression with its text.
#[derive(Clone, Debug)]
struct GoRegexText(String, GoRegex);

fn origin(text: &str) -> Result<GoRegexText, String> {
    GoRegex::new(text).map(|regex| GoRegexText(text.to_owned(), regex)).map_err(|e| e.to_string())
}

impl WebArgs {
    /// Who may call from a browser page of another origin.
    pub(crate) fn cross_origin(&self) -> CrossOrigin {
        match &self.cors_origin {
            _ if self.disable_cors => CrossOrigin::Off,
            GoRegexText(text, _) if text == ".*" => CrossOrigin::All,
            GoRegexText(_, regex) => CrossOrigin::Matching(regex.clone()),
        }
    }

    /// Where the API lies.
    pub(crate) fn prefixes(&self) -> Prefixes {
        Prefixes {
            route: self.route_prefix.clone(),
            external: self.external_prefix.clone(),
            header: self.prefix_header.clone(),
        }
    }
}
