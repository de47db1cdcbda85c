//! Sockets that have a path: who has it, and how it is given back.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::net::{UnixListener, UnixStream};

use super::accept::Listen;
use super::error::{Kind, ServeError};

/// Which file a path leads to, as long as it is kept open.
type FileId = (u64, u64);

/// The file of a socket that somebody listens at; ours, until it is given back.
pub(super) struct SocketFile {
    path: PathBuf,
    file: FileId,
    gone: AtomicBool,
}

impl SocketFile {
    /// Takes away the file, unless it is somebody else's by now. The socket must still be open, or its number could
    /// be that of another file.
    pub(super) fn remove(&self) {
        if self.gone.swap(true, Ordering::SeqCst) || file_id(&self.path).ok() != Some(self.file) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the file of a socket is left");
        }
    }
}

/// Listens at a path, which it gives back when it is dropped.
pub(super) struct Listener {
    file: Arc<SocketFile>,
    listener: UnixListener,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.file.remove();
    }
}

impl Listen for Listener {
    type Stream = UnixStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        Poll::Ready(Ok(stream))
    }
}

/// How often it tries to have a path that others try to have as well.
const ATTEMPTS: usize = 16;

impl Listener {
    /// Listens at a path where nobody else does.
    pub(super) async fn bind(path: &Path) -> Result<(Self, Arc<SocketFile>), ServeError> {
        let shown = || path.display().to_string();
        SocketAddr::from_pathname(path).map_err(|_| Kind::Path(shown()))?;
        // A socket has its file before anybody can connect, and would be taken for a stale one. So it gets the
        // path when it listens, which is a step of its own that fails where there is something.
        let (listener, first) = somewhere_beside(path)?;
        let file = take(path, &first.0).await?;
        let file = Arc::new(SocketFile { path: path.to_owned(), file, gone: false.into() });
        Ok((Listener { file: Arc::clone(&file), listener }, file))
    }
}

fn listening(path: &Path, source: io::Error) -> ServeError {
    Kind::Listen { place: format!("\"{}\"", path.display()), source }.into()
}

/// A name that a file has for a moment.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "the file of a socket is left");
        }
    }
}

/// A name in the same directory that nobody else has, as far as this process knows.
fn beside(path: &Path) -> PathBuf {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{:x}-{number:x}", std::process::id()))
}

/// Listens beside a path, at a short name.
fn somewhere_beside(path: &Path) -> Result<(UnixListener, Name), ServeError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let name = beside(path);
        SocketAddr::from_pathname(&name).map_err(|_| Kind::Path(path.display().to_string()))?;
        match UnixListener::bind(&name) {
            Ok(listener) => return Ok((listener, Name(name))),
            // Processes of several containers may have the same number.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < ATTEMPTS => {}
            Err(error) => return Err(listening(path, error)),
        }
    }
}

/// Gives a path to the socket that listens at another.
async fn take(path: &Path, first: &Path) -> Result<FileId, ServeError> {
    let file = file_id(first).map_err(|error| listening(path, error))?;
    for _ in 0..ATTEMPTS {
        match fs::hard_link(first, path) {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => vacate(path).await?,
            Err(error) => return Err(listening(path, error)),
        }
    }
    Err(Kind::Alive(path.display().to_string()).into())
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Takes away the file of a socket at which nobody listens any more.
async fn vacate(path: &Path) -> Result<(), ServeError> {
    let shown = || path.display().to_string();
    let failed = |source| listening(path, source);
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Kind::Occupied(shown()).into());
    }
    let stale = (metadata.dev(), metadata.ino());
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(failed(error));
        }
        // Whoever has too much to do to answer is there as well.
        _ => return Err(Kind::Alive(shown()).into()),
    }
    // Somebody else may find the same and be quicker, and then the file is theirs. So it is moved, which only one
    // can do, and looked at where nobody else does.
    let aside = beside(path);
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    let found = file_id(&aside).map_err(failed)?;
    if found == stale {
        return fs::remove_file(&aside).map_err(failed);
    }
    let aside = Name(aside);
    if let Err(error) = fs::hard_link(&aside.0, path) {
        tracing::warn!(%error, path = %path.display(), "a socket of another server lost its file");
    }
    Err(Kind::Alive(shown()).into())
}
