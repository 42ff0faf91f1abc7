//! The door: which pages may speak to us, who a client is. It stands before everything else, Socket.IO included.
//!
//! A page of another origin is refused where it could do something (anything but GET, and sockets), and gets no
//! CORS header where it could only look. A server that only listens on loopback also refuses names that are not
//! loopback's: a name that an attacker lets point here would otherwise make his page our own (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};

use super::problem::Problem;
use crate::config::CorsOrigin;
use crate::id::Client;

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("Content-Type, Authorization, X-Api-Key, Idempotency-Key, Last-Event-ID");
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("Retry-After");
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

pub struct Access {
    pub cors_origin: CorsOrigin,
    /// We listen on loopback only.
    pub loopback: bool,
    pub trust_proxy: bool,
}

/// What the door says to a request.
pub enum Entry {
    /// Come in; the origin goes into the answer's CORS headers.
    Welcome(Option<HeaderValue>),
    /// Answered at the door.
    Answered(Box<Response<String>>),
}

impl Access {
    pub fn check<B>(&self, request: &Request<B>) -> Entry {
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if self.loopback && !self.trust_proxy && !host.is_none_or(|host| self.expected_host(host)) {
            return refused("This server answers on localhost only; the Host header names another machine.");
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Entry::Welcome(None);
        };
        let known = origin.to_str().is_ok_and(|origin| self.allows(origin, host));
        let acts = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            || headers.contains_key(header::UPGRADE)
            // Socket.IO's polling opens and reads a socket with GET.
            || request.uri().path().starts_with("/socket.io");
        match (known, request.method()) {
            (true, &Method::OPTIONS) => Entry::Answered(Box::new(preflight(origin))),
            (true, _) => Entry::Welcome(Some(origin.clone())),
            (false, _) if acts => refused("Pages of this origin may not use this server; see CORS_ORIGIN."),
            (false, _) => Entry::Welcome(None),
        }
    }

    fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        if self.cors_origin == CorsOrigin::Any {
            return true;
        }
        // `null`: a page that does not say where it is from.
        let Some((_, origin_host)) = origin.split_once("://") else {
            return false;
        };
        if host.is_some_and(|host| host.eq_ignore_ascii_case(origin_host)) {
            return true;
        }
        match &self.cors_origin {
            CorsOrigin::Any => true,
            CorsOrigin::Localhost => is_loopback(origin_host),
            CorsOrigin::List(origins) => origins.iter().any(|own| own.eq_ignore_ascii_case(origin)),
        }
    }

    fn expected_host(&self, host: &str) -> bool {
        let listed = match &self.cors_origin {
            CorsOrigin::List(origins) => {
                origins.iter().filter_map(|origin| origin.split_once("://")).any(|(_, own)| own == host)
            }
            _ => false,
        };
        listed || is_loopback(host)
    }

    /// Who asks: the address, or what the proxy that we trust says it was.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let forwarded = || {
            let last = headers.get_all(FORWARDED).iter().next_back()?.to_str().ok()?;
            let last = last.rsplit(',').next()?.trim();
            // Some proxies add the port.
            last.parse().ok().or_else(|| Some(last.parse::<SocketAddr>().ok()?.ip()))
        };
        let address = if self.trust_proxy { forwarded().unwrap_or(peer) } else { peer };
        match address.to_canonical() {
            IpAddr::V4(address) => Client::new(address.to_string()),
            // One subscriber has a /64 and picks addresses from it at will (RFC 6177).
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Client::new(format!("{a:x}:{b:x}:{c:x}:{d:x}::/64"))
            }
        }
    }

    /// Adds what a browser wants to see before it lets a page read the answer.
    pub fn seal<B>(origin: Option<HeaderValue>, response: &mut Response<B>) {
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

fn refused(sentence: &str) -> Entry {
    Entry::Answered(Box::new(Problem::new(StatusCode::FORBIDDEN, sentence).response()))
}

fn preflight(origin: &HeaderValue) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Access::seal(Some(origin.clone()), &mut response);
    response
}

/// `localhost`, its subdomains, 127.0.0.0/8 and ::1, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let Some(host) = authority.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase))
    else {
        return false;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || host == "localhost"
        || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enters(access: &Access, method: Method, host: &str, origin: Option<&str>, socket: bool) -> bool {
        let mut request = Request::builder().method(method).uri("/api/execute").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if socket {
            request = request.header("upgrade", "websocket");
        }
        matches!(access.check(&request.body(()).expect("valid")), Entry::Welcome(_))
    }

    fn access(cors_origin: CorsOrigin, loopback: bool) -> Access {
        Access { cors_origin, loopback, trust_proxy: false }
    }

    #[test]
    fn pages_of_other_origins_can_look_but_not_act() {
        let door = access(CorsOrigin::Localhost, true);
        let evil = Some("https://evil.example");
        assert!(enters(&door, Method::GET, "localhost:3000", evil, false));
        assert!(!enters(&door, Method::POST, "localhost:3000", evil, false));
        assert!(!enters(&door, Method::GET, "localhost:3000", evil, true), "sockets act");
        assert!(!enters(&door, Method::POST, "localhost:3000", Some("null"), false));
        assert!(enters(&door, Method::POST, "localhost:3000", Some("http://localhost:5173"), false));
        assert!(enters(&door, Method::POST, "localhost:3000", None, false), "no browser");
        assert!(!enters(&door, Method::POST, "localhost:3000", Some("http://localhost.evil.example"), false));
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_refused() {
        let door = access(CorsOrigin::Localhost, true);
        assert!(!enters(&door, Method::POST, "evil.example:3000", Some("http://evil.example:3000"), false));
        assert!(!enters(&door, Method::GET, "evil.example", None, false));
        for host in ["localhost", "127.0.0.1:3000", "[::1]:3000", "oc.localhost:3000"] {
            assert!(enters(&door, Method::GET, host, None, false), "{host}");
        }
        let open = access(CorsOrigin::Localhost, false);
        assert!(enters(&open, Method::POST, "code.example", Some("https://code.example"), false));
    }

    #[test]
    fn polling_is_a_socket_too() {
        let door = access(CorsOrigin::Localhost, true);
        let polls = |origin| {
            let uri = "/socket.io/?EIO=4&transport=polling";
            let request =
                Request::builder().uri(uri).header("host", "localhost:3000").header("origin", origin);
            matches!(door.check(&request.body(()).expect("valid")), Entry::Welcome(_))
        };
        assert!(!polls("https://evil.example"));
        assert!(polls("http://localhost:5173"));
    }

    #[test]
    fn listed_origins_are_exact() {
        let door = access(CorsOrigin::List(vec!["https://school.example".into()]), false);
        let from = |origin| enters(&door, Method::POST, "api.example", Some(origin), false);
        assert!(from("https://school.example"));
        assert!(!from("http://school.example"));
        assert!(!from("https://school.example.evil"));
        assert!(enters(
            &access(CorsOrigin::Any, false),
            Method::POST,
            "x",
            Some("https://any.example"),
            true
        ));
    }

    #[test]
    fn a_client_is_its_address_or_what_a_trusted_proxy_says() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_static("1.2.3.4, 10.9.8.7"));
        let peer = IpAddr::from([127, 0, 0, 1]);
        let door = access(CorsOrigin::Localhost, true);
        assert_eq!(door.client(peer, &headers), Client::new("127.0.0.1"));
        let proxied = Access { trust_proxy: true, ..door };
        assert_eq!(proxied.client(peer, &headers), Client::new("10.9.8.7"));
    }
}
