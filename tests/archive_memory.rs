//! A snapshot is written and read in memory that does not grow with it.

use peak_alloc::PeakAlloc;
use timely_statefun::archive::{Archive, Description, Draft, Record};
use timely_statefun::{FunctionType, SnapshotOptions, SnapshotStore, ValueSpec};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

const ACCOUNT: FunctionType<i64> = FunctionType::new("memory/account");
const NOTE: ValueSpec<String> = ValueSpec::new("note");
const RECORDS: u64 = 150_000;
/// What may be gathered before it becomes a file.
const MEMORY: usize = 4 << 20;
/// What else there is: buffers of runs, a part in two forms, names.
const BESIDES: usize = 12 << 20;
/// Some bins at a time, the one that is merged, and where sections are.
const READ: usize = 44 << 20;

/// The most that was taken meanwhile, above what was taken before.
fn peak<X>(work: impl FnOnce() -> X) -> (X, usize) {
    let before = PEAK.current_usage();
    PEAK.reset_peak_usage();
    let done = work();
    (done, PEAK.peak_usage().saturating_sub(before))
}

#[test]
fn a_snapshot_takes_no_more_memory_than_it_may_however_many_records_it_has() {
    let began = std::time::Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let options = SnapshotOptions { part_bytes: 1 << 20, ..SnapshotOptions::default() };
    let store = SnapshotStore::directory(directory.path(), options).unwrap();
    let archive = Archive::of(&store).unwrap();
    let draft = Draft::of("functions");
    let (info, written) = peak(|| {
        let description = Description::beginning("memory", &0u64).unwrap();
        let mut writer = archive.writer(&description).memory(MEMORY);
        for number in 0..RECORDS {
            let record = draft.value(ACCOUNT, number, NOTE, &number.to_string().repeat(80));
            writer.push(record.unwrap()).unwrap();
        }
        writer.finish().unwrap()
    });
    let (count, read) = peak(|| {
        let snapshot = archive.newest().unwrap();
        let mut count = 0;
        for record in snapshot.records() {
            let Record::State(record) = record.unwrap() else { panic!("there is only state") };
            count += 1 + record.address.id.as_number().unwrap();
        }
        count
    });
    assert_eq!(count, RECORDS + RECORDS * (RECORDS - 1) / 2);
    assert!(info.bytes > READ as u64 + (16 << 20), "{} bytes are too few to tell", info.bytes);
    println!(
        "{RECORDS} records, {} bytes: written with {written}, read with {read}, in {:?}",
        info.bytes,
        began.elapsed()
    );
    assert!(written < MEMORY + BESIDES, "writing took {written} bytes");
    assert!(read < READ, "reading took {read} bytes");
}
