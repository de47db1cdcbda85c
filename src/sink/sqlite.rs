//! A sink that writes into a SQLite database: records and the number of their cut in one transaction.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Sink, SinkError};

/// The numbers of all sinks of a database. One may have several.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS timely_statefun_sinks (
    name TEXT NOT NULL,
    shard INTEGER NOT NULL,
    shards INTEGER NOT NULL,
    cut INTEGER NOT NULL,
    PRIMARY KEY (name, shard)
) WITHOUT ROWID";

/// How long to wait for others that write in the database before it is a failure, which is tried again.
const BUSY_MAX: Duration = Duration::from_secs(5);

type Insert<E> = Box<dyn Fn(&Transaction<'_>, &E) -> Result<(), SinkError> + Send + Sync>;

/// A [sink](Sink) that writes into a SQLite database.
///
/// All records of a cut are inserted in one transaction, by a closure of the program's, and so is the cut's
/// number: into a table `timely_statefun_sinks`, by the sink's name and the shard. So a cut is there or it is
/// not, for whoever reads the database, and it is there once. A sink that is there with another number of
/// shards is [refused](SinkError::is_refused).
///
/// ```
/// use timely_statefun::sink::{Sink, SqliteSink};
///
/// let path = std::env::temp_dir().join(format!("sqlite-sink-{}.db", std::process::id()));
/// let sink = SqliteSink::new(&path, "bills", |transaction, (who, amount): &(String, i64)| {
///     transaction.execute("INSERT INTO bills VALUES (?1, ?2)", (who, amount))?;
///     Ok(())
/// });
/// let sink = sink.prepared("CREATE TABLE IF NOT EXISTS bills (who TEXT, amount INTEGER)");
/// sink.write(0, 3, &[("Ada".to_owned(), 7)])?;
/// sink.write(0, 3, &[("Ada".to_owned(), 7)])?;
///
/// let database = rusqlite::Connection::open(&path)?;
/// let sum: i64 = database.query_row("SELECT sum(amount) FROM bills", [], |row| row.get(0))?;
/// assert_eq!((sink.last(0)?, sum), (Some(3), 7));
/// # std::fs::remove_file(path)?;
/// # Ok::<(), timely_statefun::sink::SinkError>(())
/// ```
pub struct SqliteSink<E> {
    path: PathBuf,
    name: String,
    shards: u32,
    prepare: String,
    insert: Insert<E>,
    /// One for all shards, of which SQLite lets one write at a time.
    connection: Mutex<Option<Connection>>,
}

impl<E: 'static> SqliteSink<E> {
    /// A sink of this name into the database of a file, which is made if it is not there. `insert` writes one
    /// record, and nothing else must be done with the transaction.
    pub fn new(
        path: impl Into<PathBuf>,
        name: impl Into<String>,
        insert: impl Fn(&Transaction<'_>, &E) -> Result<(), SinkError> + Send + Sync + 'static,
    ) -> Self {
        SqliteSink {
            path: path.into(),
            name: name.into(),
            shards: 1,
            prepare: String::new(),
            insert: Box::new(insert),
            connection: Mutex::new(None),
        }
    }

    /// Has these statements executed whenever the database is opened: they make the tables that are written to,
    /// if they are not there.
    #[must_use]
    pub fn prepared(mut self, statements: impl Into<String>) -> Self {
        self.prepare = statements.into();
        self
    }

    /// Divides records among so many shards, each of which is written by itself. Default 1. It belongs to what
    /// is stored, and can never be changed.
    #[must_use]
    pub fn divided(mut self, shards: u32) -> Self {
        self.shards = shards.max(1);
        self
    }

    /// Does something with the database, which is opened if it is not, and closed after a failure.
    fn with<R>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<R, SinkError>,
    ) -> Result<R, SinkError> {
        let lock: MutexGuard<'_, Option<Connection>> =
            self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = lock;
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        let acted = act(&mut connection)?;
        *open = Some(connection);
        Ok(acted)
    }

    fn open(&self) -> Result<Connection, SinkError> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY_MAX)?;
        // What is acknowledged never comes again, so it must survive a loss of power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(TABLE)?;
        connection.execute_batch(&self.prepare)?;
        Ok(connection)
    }

    /// The number that a shard remembers.
    fn look(&self, connection: &Connection, shard: u32) -> Result<Option<u64>, SinkError> {
        let name = &self.name;
        let other = "SELECT shards FROM timely_statefun_sinks WHERE name = ?1 AND shards <> ?2";
        let other: Option<u32> =
            connection.query_row(other, params![name, self.shards], |row| row.get(0)).optional()?;
        if let Some(other) = other {
            let why = format!("sink \"{name}\" has {other} shards there, and not {}", self.shards);
            return Err(SinkError::refused(why));
        }
        let cut = "SELECT cut FROM timely_statefun_sinks WHERE name = ?1 AND shard = ?2";
        let cut: Option<i64> =
            connection.query_row(cut, params![name, shard], |row| row.get(0)).optional()?;
        Ok(cut.map(u64::try_from).transpose()?)
    }
}

impl<E: 'static> Sink<E> for SqliteSink<E> {
    fn shards(&self) -> u32 {
        self.shards
    }

    fn last(&self, shard: u32) -> Result<Option<u64>, SinkError> {
        self.with(|connection| self.look(connection, shard))
    }

    fn write(&self, shard: u32, cut: u64, records: &[E]) -> Result<(), SinkError> {
        self.with(|connection| {
            // Immediate: nobody else writes between the look and the end.
            let behavior = TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(behavior)?;
            if self.look(&transaction, shard)?.is_some_and(|last| last >= cut) {
                return Ok(());
            }
            #[cfg(statefun_planted)]
            crate::planted::reach("sink-transaction-begun");
            records.iter().try_for_each(|record| (self.insert)(&transaction, record))?;
            let note = "INSERT INTO timely_statefun_sinks (name, shard, shards, cut)
                VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (name, shard) DO UPDATE SET cut = excluded.cut";
            let number = i64::try_from(cut)?;
            transaction.execute(note, params![self.name, shard, self.shards, number])?;
            #[cfg(statefun_planted)]
            crate::planted::reach("sink-transaction-written");
            transaction.commit()?;
            #[cfg(statefun_planted)]
            crate::planted::reach("sink-transaction-committed");
            Ok(())
        })
    }
}

impl<E> fmt::Debug for SqliteSink<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSink")
            .field("path", &self.path)
            .field("name", &self.name)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::remove_file;

    use super::*;

    /// A database that is gone with this.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("statefun-sink-{name}-{}.db", std::process::id());
            let place = Place(std::env::temp_dir().join(name));
            drop(remove_file(&place.0));
            place
        }

        /// Takes even numbers only.
        fn sink(&self) -> SqliteSink<i64> {
            let sink = SqliteSink::new(&self.0, "numbers", |transaction, number: &i64| {
                if number % 2 != 0 {
                    return Err(SinkError::refused("it is odd"));
                }
                transaction.execute("INSERT INTO numbers VALUES (?1)", [number])?;
                Ok(())
            });
            sink.prepared("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")
        }

        fn numbers(&self) -> Vec<i64> {
            let database = Connection::open(&self.0).unwrap();
            let mut select = database.prepare("SELECT number FROM numbers ORDER BY rowid").unwrap();
            let numbers = select.query_map([], |row| row.get(0)).unwrap();
            numbers.map(Result::unwrap).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(remove_file(&self.0));
        }
    }

    #[test]
    fn a_cut_and_its_number_are_there_together_once() {
        let place = Place::new("once");
        let (sink, other) = (place.sink().divided(2), place.sink().divided(2));
        assert_eq!(sink.last(0).unwrap(), None);
        sink.write(0, 7, &[2, 4]).unwrap();
        // Another that began before that was written.
        other.write(0, 7, &[2, 4]).unwrap();
        other.write(0, 6, &[8]).unwrap();
        other.write(1, 6, &[6]).unwrap();
        assert!(sink.write(0, 8, &[10, 11]).unwrap_err().is_refused());
        assert_eq!((sink.last(0).unwrap(), sink.last(1).unwrap()), (Some(7), Some(6)));
        assert_eq!(place.numbers(), [2, 4, 6]);
        sink.write(0, 9, &[10]).unwrap();
        assert_eq!(place.numbers(), [2, 4, 6, 10]);
    }

    #[test]
    fn another_number_of_shards_is_refused() {
        let place = Place::new("shards");
        place.sink().divided(2).write(1, 7, &[2]).unwrap();
        let sink = place.sink().divided(3);
        let refused = sink.last(0).unwrap_err();
        assert!(refused.is_refused() && refused.to_string().contains("2 shards"), "{refused}");
        assert!(sink.write(0, 9, &[2]).unwrap_err().is_refused());
        assert_eq!(place.numbers(), [2]);
    }
}
