//! The same over Unix sockets: who has the path, and what becomes of its file.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::*;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = format!("serving-{name}-{}", std::process::id());
        let place = std::env::temp_dir().join(place);
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir(&place).unwrap();
        Place(place)
    }

    fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.0).unwrap();
        let mut files: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn serve(path: &Path) -> Serving {
    within(Server::new(Echo::default()).bind_unix(path)).unwrap()
}

fn ask(path: &Path) -> Said {
    let stream = UnixStream::connect(path).unwrap();
    let reader = BufReader::new(stream.try_clone().unwrap());
    Caller { stream, reader }.ask("hello")
}

#[test]
fn a_socket_is_there_while_its_server_is() {
    let place = Place::new("there");
    let path = place.0.join("functions.sock");
    for gracefully in [true, false] {
        let serving = serve(&path);
        assert_eq!(serving.url(), format!("http+unix://{}", path.display()));
        assert_eq!(serving.local_addr(), None);
        assert_eq!(ask(&path).body, b"hello");
        if gracefully {
            assert!(within(serving.shutdown()).is_graceful());
        } else {
            drop(serving);
        }
        assert_eq!(place.files(), [""; 0]);
    }
}

#[test]
fn who_is_there_is_left_alone_and_who_is_not_is_replaced() {
    let place = Place::new("replaced");
    let path = place.0.join("functions.sock");
    let serving = serve(&path);
    let error = within(Server::new(Echo::default()).bind_unix(&path)).unwrap_err();
    assert!(error.is_in_use());
    assert_eq!(error.to_string(), format!("somebody else listens at \"{}\"", path.display()));
    assert_eq!(ask(&path).body, b"hello");
    drop(serving);

    // As a program leaves it that is killed.
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(place.files(), ["functions.sock"]);
    let serving = serve(&path);
    assert_eq!(ask(&path).body, b"hello");
    assert_eq!(place.files(), ["functions.sock"]);
    drop(serving);

    std::fs::write(&path, "precious").unwrap();
    let error = within(Server::new(Echo::default()).bind_unix(&path)).unwrap_err();
    assert!(error.is_in_use(), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_file_that_is_another_servers_by_now_stays() {
    let place = Place::new("another");
    let path = place.0.join("functions.sock");
    let first = serve(&path);
    std::fs::remove_file(&path).unwrap();
    let second = serve(&path);
    assert!(within(first.shutdown()).is_graceful());
    assert_eq!(ask(&path).body, b"hello");
    drop(second);
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn paths_that_cannot_be_are_errors() {
    let place = Place::new("errors");
    let bind = |path: &Path| within(Server::new(Echo::default()).bind_unix(path)).unwrap_err();
    let error = bind(&place.0.join("x".repeat(200)));
    assert!(error.is_path() && error.to_string().contains("is too long"), "{error}");
    let error = bind(&place.0.join("nowhere/functions.sock"));
    assert!(!error.is_path() && !error.is_in_use() && !error.is_denied(), "{error}");
    assert_eq!(place.files(), [""; 0]);
}

/// Both find the same stale file at once, and one of them has it in the end.
#[test]
fn of_two_that_replace_a_file_one_does() {
    let place = Place::new("two");
    let path = place.0.join("functions.sock");
    for _ in 0..100 {
        drop(UnixListener::bind(&path).unwrap());
        let bind = || {
            let path = path.clone();
            runtime().spawn(async move { Server::new(Echo::default()).bind_unix(path).await })
        };
        let all: Vec<_> = (0..2).map(|_| bind()).collect();
        let all: Vec<_> = all.into_iter().map(|bound| within(bound).unwrap()).collect();
        let (bound, errors): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        assert_eq!(bound.len(), 1, "{errors:?}");
        assert!(errors.iter().all(|error| error.as_ref().is_err_and(|error| error.is_in_use())));
        assert_eq!(ask(&path).body, b"hello");
        drop(bound);
        assert_eq!(place.files(), [""; 0]);
    }
}
