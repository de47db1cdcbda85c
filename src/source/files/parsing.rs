//! What a record says, from its bytes.

use serde::de::DeserializeOwned;

use super::error::FileErrorKind;

/// Makes a record of its bytes. It is told of which file they are, and whether they are the first of it.
pub(super) trait ParseBytes<D>: Send + Sync {
    fn parse(&mut self, bytes: &[u8], file: u64, first: bool) -> Result<Parse<D>, FileErrorKind>;
}

pub(super) type Parser<D> = Box<dyn ParseBytes<D>>;

/// What bytes are.
pub(super) enum Parse<D> {
    Record(D),
    /// Something that is no record, such as an empty line.
    Nothing,
}

impl<D, F> ParseBytes<D> for F
where
    F: FnMut(&[u8], u64, bool) -> Result<Parse<D>, FileErrorKind> + Send + Sync,
{
    fn parse(&mut self, bytes: &[u8], file: u64, first: bool) -> Result<Parse<D>, FileErrorKind> {
        self(bytes, file, first)
    }
}

/// Lines as text.
pub(super) fn text() -> Parser<String> {
    Box::new(|bytes: &[u8], _, _| {
        let text = std::str::from_utf8(bytes).map_err(|_| FileErrorKind::NotUtf8)?;
        Ok(Parse::Record(text.to_owned()))
    })
}

/// Lines as values in JSON.
pub(super) fn json<D: DeserializeOwned + Send + 'static>() -> Parser<D> {
    Box::new(|bytes: &[u8], _, _| {
        let text = std::str::from_utf8(bytes).map_err(|_| FileErrorKind::NotUtf8)?;
        if text.trim_ascii().is_empty() {
            return Ok(Parse::Nothing);
        }
        let value = serde_json::from_str(text);
        value.map(Parse::Record).map_err(|error| FileErrorKind::Malformed(error.to_string()))
    })
}

/// What records of CSV look like.
#[cfg(feature = "csv")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// Whether the first record of each file has the names of the fields. Default: yes.
    pub headers: bool,
    /// What is between two fields: one byte of ASCII, and neither a quote nor a line feed. Default a comma.
    pub delimiter: u8,
}

#[cfg(feature = "csv")]
impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { headers: true, delimiter: b',' }
    }
}

/// Records of CSV as values.
#[cfg(feature = "csv")]
pub(super) fn csv<D: DeserializeOwned + Send + 'static>(options: CsvOptions) -> Parser<D> {
    use std::collections::HashMap;

    let mut headers = HashMap::<u64, csv::StringRecord>::new();
    let mut record = csv::StringRecord::new();
    Box::new(move |bytes: &[u8], file: u64, first: bool| {
        let names_first = options.headers && first;
        if bytes.is_empty() && !names_first {
            return Ok(Parse::Nothing);
        }
        std::str::from_utf8(bytes).map_err(|_| FileErrorKind::NotUtf8)?;
        // What it says of where it is starts anew with each record, and would only confuse.
        let malformed = |error: csv::Error| {
            let why = match error.kind() {
                csv::ErrorKind::Deserialize { err, .. } => match err.field() {
                    Some(field) => format!("field {}: {}", field + 1, err.kind()),
                    None => err.kind().to_string(),
                },
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("it has {len} fields, and not {expected_len}")
                }
                _ => error.to_string(),
            };
            FileErrorKind::Malformed(why)
        };
        let mut reader = csv::ReaderBuilder::new();
        reader.has_headers(false).flexible(true).delimiter(options.delimiter);
        let mut reader = reader.buffer_capacity(bytes.len()).from_reader(bytes);
        if !reader.read_record(&mut record).map_err(malformed)? {
            return match names_first {
                true => Err(FileErrorKind::Malformed("it begins with no names".to_owned())),
                false => Ok(Parse::Nothing),
            };
        }
        if names_first {
            headers.insert(file, std::mem::take(&mut record));
            return Ok(Parse::Nothing);
        }
        let headers = headers.get(&file);
        if options.headers && headers.is_none() {
            let why = "the names of its fields could not be read".to_owned();
            return Err(FileErrorKind::Malformed(why));
        }
        if let Some(expected) = headers.map(csv::StringRecord::len)
            && expected != record.len()
        {
            let why = format!("it has {} fields, and not {expected}", record.len());
            return Err(FileErrorKind::Malformed(why));
        }
        record.deserialize(headers).map(Parse::Record).map_err(malformed)
    })
}
