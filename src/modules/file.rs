//! The one door to the files of modules, and to those that they name and nobody else reads.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{Mistake, ModuleError, Place};
use super::tree::BYTES_MAX;

/// What is in a module's file, of which not much more is read than a module may have.
pub(super) fn module(path: &Path) -> Result<String, ModuleError> {
    let place = Place::file(&path.to_string_lossy());
    read(path, BYTES_MAX + 1).map_err(|why| ModuleError::new(&place, Mistake::Unreadable { why }))
}

/// The password that is in a file, without the line break at its end.
#[cfg(feature = "tls")]
pub(super) fn password(path: &Path) -> Result<String, String> {
    const PASSWORD_BYTES_MAX: usize = 1 << 16;
    let mut text = read(path, PASSWORD_BYTES_MAX)?;
    let end = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).len());
    text.truncate(end.unwrap_or(text.len()));
    Ok(text)
}

fn read(path: &Path, bytes_max: usize) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(bytes_max as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    // Where it was cut off it may end within a character; whoever asks sees that it is too long.
    let cut_off = bytes.len() == bytes_max;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if cut_off && error.utf8_error().error_len().is_none() => {
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
        Err(error) => Err(error.utf8_error().to_string()),
    }
}
