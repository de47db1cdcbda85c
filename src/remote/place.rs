//! Where functions are: what is requested of whom, and through which socket.
//!
//! URLs are read here, and nothing is opened.

use std::path::PathBuf;

use reqwest::Url;

/// What stands for the name of a function's type.
const NAME: &str = "{function.name}";
/// What the name of a socket's file ends with.
const SOCK: &str = ".sock";

/// Where the functions of an endpoint are.
pub(super) struct Places {
    /// What the program says.
    given: String,
    /// What is requested, as far as it is the same for all of them.
    url: String,
    /// The path of the socket's file, if there is one, as it stands in the URL.
    socket: Option<String>,
}

/// Where a function is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// What is requested.
    pub(super) url: Url,
    /// The socket's file. Without one, the URL says who is asked.
    pub(super) socket: Option<PathBuf>,
    /// The URL as the program says it, with the function's name.
    pub(super) given: String,
}

impl Place {
    /// # Errors
    ///
    /// If it is asked with TLS, and the program has none.
    pub(super) fn check(&self, has_tls: bool) -> Result<(), String> {
        match self.is_secure() && !has_tls {
            true => Err("https needs the feature `tls`, without which this was built".to_owned()),
            false => Ok(()),
        }
    }

    /// Whether it is asked with TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }
}

impl Places {
    /// # Errors
    ///
    /// What is wrong with the URL.
    pub(super) fn new(given: &str) -> Result<Self, String> {
        let (scheme, rest) = given.split_once(':').unwrap_or(("", given));
        let (url, socket) = match scheme.to_ascii_lowercase().as_str() {
            "http+unix" => split("http", rest)?,
            "https+unix" => split("https", rest)?,
            _ => (given.to_owned(), None),
        };
        let places = Places { given: given.to_owned(), url, socket };
        let Place { url, .. } = places.place("name")?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(
                "it must begin with http:// or https:// and name a host, or with http+unix:// and \
                 name a socket"
                    .to_owned(),
            );
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it names a user, who belongs into a header".to_owned());
        }
        Ok(places)
    }

    /// The same places, of which each is asked for one path.
    ///
    /// # Errors
    ///
    /// If the URL has another.
    #[cfg(feature = "grpc")]
    pub(super) fn at_path(self, path: &'static str) -> Result<Self, String> {
        let Place { url, .. } = self.place("name")?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(
                "it has a path or a query, and gRPC has a path of its own: it may only say who is asked"
                    .to_owned(),
            );
        }
        let url = self.url.trim_end_matches('/');
        Ok(Places { url: format!("{url}{path}"), ..self })
    }

    /// Whether each function has a socket of its own.
    pub(super) fn have_sockets_of_their_own(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.contains(NAME))
    }

    /// Where a function is, whose name changes nothing else of it.
    ///
    /// # Errors
    ///
    /// If there is no place for this name.
    pub(super) fn place(&self, name: &str) -> Result<Place, String> {
        if matches!(name, "." | "..") {
            return Err("no part of a URL can be named so".to_owned());
        }
        let name = escaped(name);
        let with_name = |template: &str| template.replace(NAME, &name);
        let url = Url::parse(&with_name(&self.url)).map_err(|error| error.to_string())?;
        let socket = self.socket.as_deref().map(|socket| file(&with_name(socket))).transpose()?;
        let given = match socket {
            Some(_) => with_name(&self.given),
            None => url.to_string(),
        };
        Ok(Place { url, socket, given })
    }
}

/// What is requested through a socket, and the path of the socket's file.
fn split(scheme: &str, rest: &str) -> Result<(String, Option<String>), String> {
    if cfg!(not(unix)) {
        return Err("this system has no Unix sockets".to_owned());
    }
    let Some(path) = rest.strip_prefix("//").filter(|path| path.starts_with('/')) else {
        return Err(format!(
            "the socket's path must be absolute, as in {scheme}+unix:///run/functions{SOCK}/path"
        ));
    };
    let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let mut end = 0;
    for part in path.split_inclusive('/') {
        end += part.len();
        let part = part.strip_suffix('/').unwrap_or(part);
        if part.ends_with(SOCK) {
            let (socket, path) = path.split_at(end);
            let socket = socket.strip_suffix('/').unwrap_or(socket);
            // Whom it names is of no consequence; servers that look at it take this for themselves.
            return Ok((format!("{scheme}://localhost/{path}{query}"), Some(socket.to_owned())));
        }
    }
    Err(format!("no part of its path ends with {SOCK}, so it names no socket"))
}

/// The path of a file, from how it stands in a URL.
fn file(path: &str) -> Result<PathBuf, String> {
    for part in path.split('/') {
        let part = unescaped(part)?;
        // A name must not lead to another directory than the program says.
        if matches!(part.as_str(), "." | "..") || part.contains(['/', '\0']) {
            return Err(format!("no part of a socket's path can be {part:?}"));
        }
    }
    let path = PathBuf::from(unescaped(path)?);
    #[cfg(unix)]
    if std::os::unix::net::SocketAddr::from_pathname(&path).is_err() {
        let len = path.as_os_str().len();
        return Err(format!("the socket's path is too long for this system: it has {len} bytes"));
    }
    Ok(path)
}

fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let byte = byte.ok_or("a percent sign in the socket's path has no two digits after it")?;
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| "the socket's path is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is requested for a name, and through which file.
    #[cfg(unix)]
    fn through(given: &str, name: &str) -> Result<(String, String), String> {
        let place = Places::new(given)?.place(name)?;
        let socket = place.socket.expect("it is a socket");
        Ok((socket.to_str().expect("it is UTF-8").to_owned(), place.url.to_string()))
    }

    #[test]
    #[cfg(unix)]
    fn a_socket_is_what_comes_before_the_path() {
        for (given, socket, url) in [
            ("http+unix:///run/a.sock/b/c", "/run/a.sock", "http://localhost/b/c"),
            ("HTTP+Unix:///run/a.sock", "/run/a.sock", "http://localhost/"),
            ("http+unix:///run/a.sock?code=1", "/run/a.sock", "http://localhost/?code=1"),
            ("http+unix:///a.sock/b?c.sock/d#e", "/a.sock", "http://localhost/b?c.sock/d#e"),
            ("http+unix:///a.sock/b.sock/c", "/a.sock", "http://localhost/b.sock/c"),
            ("http+unix:///a.sockets/b.sock/", "/a.sockets/b.sock", "http://localhost/"),
            ("http+unix:///my%20dir/%c3%a4.sock/", "/my dir/ä.sock", "http://localhost/"),
            ("https+unix:///run/a.sock/b", "/run/a.sock", "https://localhost/b"),
            ("http+unix:///r/{function.name}.sock/b", "/r/greeter.sock", "http://localhost/b"),
            ("http+unix:///a.sock/{function.name}", "/a.sock", "http://localhost/greeter"),
        ] {
            let expected = (socket.to_owned(), url.to_owned());
            assert_eq!(through(given, "greeter"), Ok(expected), "{given}");
        }
    }

    #[test]
    fn a_url_with_tls_needs_the_feature() {
        let place = |given: &str| Places::new(given).unwrap().place("x").unwrap();
        for (given, secure) in [
            ("http://x/", false),
            ("https://x/", true),
            ("HTTPS://x/", true),
            #[cfg(unix)]
            ("http+unix:///https.sock", false),
            #[cfg(unix)]
            ("https+unix:///a.sock", true),
        ] {
            assert_eq!(place(given).check(true), Ok(()));
            let checked = place(given).check(false);
            let named = |why: String| why.contains("feature `tls`");
            assert_eq!(checked.map_err(named).err(), secure.then_some(true), "{given}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_name_leads_to_no_other_directory() {
        let own = "http+unix:///run/{function.name}/f.sock/";
        for (given, name, socket) in [
            (own, "a.sock", "/run/a.sock/f.sock"),
            (own, "ä%2f..", "/run/ä%2f../f.sock"),
            (own, "a{function.name}", "/run/a{function.name}/f.sock"),
            ("http+unix:///run/x.{function.name}.sock/", "a?b#c", "/run/x.a?b#c.sock"),
        ] {
            assert_eq!(through(given, name).map(|(socket, _)| socket), Ok(socket.to_owned()));
        }
        for (given, name) in [
            (own, "."),
            (own, ".."),
            (own, "../x"),
            (own, "a/b"),
            (own, "a\0"),
            ("http+unix:///run/.{function.name}/f.sock/", ""),
        ] {
            assert!(through(given, name).is_err(), "{given} {name}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_names_no_socket_says_why() {
        let long = format!("http+unix:///{}.sock/", "x".repeat(150));
        for (given, why) in [
            ("http+unix:///run/a/b", "ends with .sock"),
            ("http+unix:///run/{function.name}", "ends with .sock"),
            ("http+unix:///run/a?b.sock", "ends with .sock"),
            ("http+unix://run/a.sock/b", "must be absolute"),
            ("http+unix:run/a.sock/b", "must be absolute"),
            ("http+unix:/run/a.sock/b", "must be absolute"),
            ("http+unix://%2Frun%2Fa.sock/b", "must be absolute"),
            ("http+unix:///run/../a.sock/b", "can be \"..\""),
            ("http+unix:///run/%2E/a.sock/b", "can be \".\""),
            ("http+unix:///run%2Fa.sock/b", "can be \"run/a.sock\""),
            ("http+unix:///run/%00.sock/b", "can be \"\\0.sock\""),
            ("http+unix:///run/%zz.sock/b", "no two digits"),
            ("http+unix:///run/%+1.sock/b", "no two digits"),
            ("http+unix:///run/%f.sock", "no two digits"),
            ("http+unix:///run/%ä.sock", "no two digits"),
            ("http+unix:///run/%ff.sock", "not UTF-8"),
            (&long, "it has 156 bytes"),
        ] {
            let error = Places::new(given).map(drop).expect_err(given);
            assert!(error.contains(why), "{given}: {error}");
        }
    }
}
