//! How much memory the process may use, and when caches have to give some of it back.
//!
//! [`Group`] finds what the kernel says of the process's control groups, of version 1 or 2; [`Pressure`] decides, and is pure.
//! Files of the system that cannot be read, or say something else than expected, mean that there is no limit: nothing is
//! shrunk by mistake. What does the shrinking, and when, is the daemon's matter.

use std::path::{Path, PathBuf};

/// A v1 group without a limit shows the largest number of pages there can be; no machine has as much, octets.
const NO_LIMIT: u64 = 1 << 60;

/// Groups that are looked at, own and above: more than anybody nests. Chosen without a source.
const MAX_DEPTH: usize = 32;

/// Caches shrink from so many of a hundred octets of the limit on.
const SHORT: u64 = 90;

/// Down to so many of a hundred, and they grow again below it.
const EASY: u64 = 80;

/// Looks in a row that must find it easy before caches may grow, and between two times that they do. At one look a second it is
/// a minute, so that memory which is short again at once costs a cache a part of itself a minute and not a second. Chosen
/// without a source.
const CALM: u32 = 60;

/// What a cache keeps at the least, octets: enough for the names that everybody asks. Chosen without a source.
const LEAST: u64 = 1 << 20;

/// Which files a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `memory.limit_in_bytes` and `memory.usage_in_bytes`.
    One,
    /// `memory.max` and `memory.current`.
    Two,
}

impl Version {
    /// Limit and use.
    fn files(self) -> [&'static str; 2] {
        match self {
            Self::One => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            Self::Two => ["memory.max", "memory.current"],
        }
    }

    /// Lines of `memory.stat` that count pages of files, which the kernel takes back before it kills anybody. Pages of tmpfs
    /// are none of them. In version 1 these are the lines that count descendants too, as the use does.
    fn reclaimable(self) -> [&'static str; 2] {
        match self {
            Self::One => ["total_active_file", "total_inactive_file"],
            Self::Two => ["active_file", "inactive_file"],
        }
    }
}

/// What a control group may hold and what it holds, octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Above it the kernel kills.
    pub limit: u64,
    /// Of it in use, without what the kernel can take back (pages of files).
    pub held: u64,
}

/// The control groups that limit this process: its own and those above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    version: Version,
    /// The process's own first.
    places: Vec<PathBuf>,
}

impl Group {
    /// This process's; `None` where the system shows none that counts memory.
    pub fn own() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        Self::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
    }

    /// By the text of `/proc/self/cgroup` and `/proc/self/mountinfo` (cgroups(7), proc(5)).
    fn find(groups: &str, mounts: &str) -> Option<Self> {
        let v1 = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|one| one == "memory").then_some(path)
        });
        // Where both are mounted a controller is in one of them alone.
        let (version, path) = match v1 {
            Some(path) => (Version::One, path),
            None => (Version::Two, groups.lines().find_map(|line| line.strip_prefix("0::"))?),
        };
        let (root, mount) = mounts.lines().find_map(|line| mounted(line, version))?;
        // Where the group lies outside of what is mounted here (a container without a namespace of its own), the root of what is
        // mounted is the container's.
        let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
        // Without the separator that joining nothing leaves at the end.
        let own: PathBuf = mount.join(below).components().collect();
        let places = own.ancestors().take(MAX_DEPTH).take_while(|place| place.starts_with(&mount));
        Some(Self { version, places: places.map(Path::to_owned).collect() })
    }

    /// What the group holds that is nearest to its limit; `None` where none has a limit.
    pub fn read(&self) -> Option<Reading> {
        let text = |place: &Path, file| std::fs::read_to_string(place.join(file)).ok();
        let readings = self.places.iter().filter_map(|place| {
            let [limit, used] = self.version.files();
            let limit = self::limit(&text(place, limit)?)?;
            let used = text(place, used)?.trim().parse().ok()?;
            let stat = text(place, "memory.stat").unwrap_or_default();
            Some(Reading { limit, held: held(used, &stat, self.version) })
        });
        // By share, in whole numbers that cannot overflow.
        readings.max_by_key(|reading| u128::from(reading.held) * 1_000_000 / u128::from(reading.limit.max(1)))
    }
}

/// Root and mount point of a line of mountinfo, if it is the wanted hierarchy's.
fn mounted(line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, mount) = (head.next()?, head.next()?);
    let mut tail = tail.split(' ');
    let (kind, options) = (tail.next()?, tail.nth(1).unwrap_or_default());
    let is_it = match version {
        Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::Two => kind == "cgroup2",
    };
    is_it.then(|| (unescaped(root), unescaped(mount)))
}

/// A path of mountinfo, where a blank is written `\040` (proc(5)).
fn unescaped(text: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(text.to_owned(), |text, (written, meant)| text.replace(written, meant)).into()
}

/// A limit as a file says it; `None` where there is none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| (1..NO_LIMIT).contains(limit))
}

/// Of `used` octets those that the kernel cannot take back, by the text of `memory.stat`.
fn held(used: u64, stat: &str, version: Version) -> u64 {
    let of = |name| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0u64)
    };
    let [active, inactive] = version.reclaimable();
    used.saturating_sub(of(active)).saturating_sub(of(inactive))
}

/// Says how large a cache may be as memory gets short and is easy again.
///
/// Short is less than a tenth of the limit that is left, or will be at the next look if the cache grows by as much as since the
/// last one; then it gives back what is above four fifths. It may grow, to twice its size each time, when there was a fifth left
/// for a while. In between nothing changes. What else takes memory (a reload reads lists) is not expected to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressure {
    /// What the cache may hold where memory is not short.
    whole: u64,
    /// What it may hold now.
    room: u64,
    /// What it held at the last look.
    weight: u64,
    calm: u32,
}

/// What has changed, and the octets that the cache may hold from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Memory is short: less than before.
    Shrink(u64),
    /// It is not any more: more than before.
    Grow(u64),
}

impl Pressure {
    /// For a cache of at most `whole` octets.
    pub fn new(whole: u64) -> Self {
        Self { whole, room: whole, weight: u64::MAX, calm: 0 }
    }

    /// Octets that the cache may hold now.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Whether a look found memory short as it is, whatever can still be done about it.
    pub fn is_short(reading: Reading) -> bool {
        reading.held >= share(reading.limit, SHORT)
    }

    /// Looks: `reading` is what the process may hold and holds, `weight` what the cache holds, octets. To be called at even
    /// times.
    pub fn look(&mut self, reading: Reading, weight: u64) -> Option<Change> {
        let come = weight.saturating_sub(self.weight);
        self.weight = weight;
        let soon = reading.held.saturating_add(come);
        let easy = share(reading.limit, EASY);
        if soon >= share(reading.limit, SHORT) {
            self.calm = 0;
            let left = weight.min(self.room).saturating_sub(soon - easy).max(LEAST.min(self.whole));
            if left >= self.room {
                return None;
            }
            self.room = left;
            return Some(Change::Shrink(left));
        }
        self.calm = if soon < easy { self.calm.saturating_add(1) } else { 0 };
        if self.calm < CALM || self.room >= self.whole {
            return None;
        }
        self.calm = 0;
        self.room = self.room.saturating_mul(2).clamp(1, self.whole);
        Some(Change::Grow(self.room))
    }
}

/// So many of a hundred octets of `limit`.
fn share(limit: u64, percent: u64) -> u64 {
    (u128::from(limit) * u128::from(percent) / 100) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn places(groups: &str, mounts: &str) -> Option<(Version, Vec<String>)> {
        let group = Group::find(groups, mounts)?;
        Some((group.version, group.places.iter().map(|place| place.display().to_string()).collect()))
    }

    #[test]
    fn groups_of_both_versions_are_found_with_those_above_them() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 master:2 - cgroup cgroup rw,cpu\n\
                  35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let two = |places: &[&str]| Some((Version::Two, places.iter().map(|p| (*p).to_owned()).collect()));
        let one = |places: &[&str]| Some((Version::One, places.iter().map(|p| (*p).to_owned()).collect()));
        assert_eq!(
            places("0::/system.slice/staunch.service\n", v2),
            two(&["/sys/fs/cgroup/system.slice/staunch.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"])
        );
        // A namespace of its own, as containers have.
        assert_eq!(places("0::/\n", v2), two(&["/sys/fs/cgroup"]));
        // Both are mounted, and memory is counted by the first version.
        assert_eq!(
            places("4:memory:/a/b\n1:cpu,cpuacct:/\n0::/elsewhere\n", v1),
            one(&["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"])
        );
        // A container's part of a hierarchy, told by the host's path; and a path that lies outside of what is mounted.
        let part = "35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(places("4:memory:/docker/x\n", part), one(&["/sys/fs/cgroup/memory"]));
        assert_eq!(places("4:memory:/docker/x/y\n", part), one(&["/sys/fs/cgroup/memory/y", "/sys/fs/cgroup/memory"]));
        assert_eq!(places("4:memory:/other\n", part), one(&["/sys/fs/cgroup/memory"]));
        let blank = "35 31 0:32 / /run/with\\040blank rw - cgroup2 none rw\n";
        assert_eq!(places("0::/a\n", blank), two(&["/run/with blank/a", "/run/with blank"]));
        for (groups, mounts) in [("", v2), ("0::/a\n", ""), ("4:memory:/a\n", v2), ("0\n::\n", v2), ("0::/a", " - \n")]
        {
            assert_eq!(places(groups, mounts), None, "{groups:?} {mounts:?}");
        }
        assert_eq!(places(&format!("0::{}\n", "/a".repeat(5000)), v2).expect("found").1.len(), MAX_DEPTH, "bounded");
    }

    #[test]
    fn limits_and_what_is_held_are_read_from_files_of_both_versions() {
        for (text, expected) in [
            ("536870912\n", Some(512 * MIB)),
            ("max\n", None),
            ("9223372036854771712\n", None),
            ("0\n", None),
            ("", None),
            ("-1\n", None),
        ] {
            assert_eq!(limit(text), expected, "{text:?}");
        }
        let v2 = "anon 50\nfile 40\nshmem 10\ninactive_anon 1\ninactive_file 20\nactive_file 7\n";
        let v1 = "cache 4\nactive_file 3\ntotal_cache 9\ntotal_inactive_file 30\ntotal_active_file 5\n";
        assert_eq!((held(100, v2, Version::Two), held(100, v1, Version::One)), (73, 65));
        // What is missing or makes no sense is nothing that the kernel could take back, and nothing falls below zero.
        for stat in ["", "inactive_file\nactive_file x\n", "inactive_file 18446744073709551616\n"] {
            assert_eq!(held(100, stat, Version::Two), 100, "{stat:?}");
        }
        assert_eq!(held(10, v2, Version::Two), 0);
    }

    #[test]
    fn of_several_groups_the_one_nearest_to_its_limit_counts() {
        let dir = tempfile::tempdir().expect("directory");
        let (own, above) = (dir.path().join("a/b"), dir.path().join("a"));
        std::fs::create_dir_all(&own).expect("made");
        let write = |place: &Path, files: [(&str, &str); 3]| {
            files.iter().for_each(|(file, text)| std::fs::write(place.join(file), text).expect("written"));
        };
        write(&own, [("memory.max", "max\n"), ("memory.current", "900\n"), ("memory.stat", "")]);
        write(&above, [("memory.max", "1000\n"), ("memory.current", "950\n"), ("memory.stat", "active_file 100\n")]);
        let group = |version| Group { version, places: vec![own.clone(), above.clone(), dir.path().to_owned()] };
        assert_eq!(group(Version::Two).read(), Some(Reading { limit: 1000, held: 850 }));
        assert_eq!(group(Version::One).read(), None, "no such files");
        std::fs::write(own.join("memory.max"), "901\n").expect("written");
        assert_eq!(group(Version::Two).read(), Some(Reading { limit: 901, held: 900 }));
        let files = [("memory.limit_in_bytes", "500\n"), ("memory.usage_in_bytes", "400\n"), ("memory.stat", "")];
        write(&own, files);
        assert_eq!(group(Version::One).read(), Some(Reading { limit: 500, held: 400 }));
    }

    /// What happens to a cache of `whole` MiB over looks at (held MiB, weight MiB) under a limit of 100 MiB.
    fn looks(pressure: &mut Pressure, looks: &[(u64, u64)]) -> Vec<Option<Change>> {
        let mib = |(held, weight): &(u64, u64)| (Reading { limit: 100 * MIB, held: held * MIB }, weight * MIB);
        looks.iter().map(mib).map(|(reading, weight)| pressure.look(reading, weight)).collect()
    }

    #[test]
    fn a_tenth_before_the_limit_a_cache_gives_back_what_is_above_four_fifths() {
        let mut pressure = Pressure::new(1000 * MIB);
        let shrink = |mib| Some(Change::Shrink(mib * MIB));
        assert_eq!(looks(&mut pressure, &[(80, 60), (84, 64), (85, 65)]), [None; 3], "not yet, nor soon");
        assert_eq!(looks(&mut pressure, &[(88, 68)]), [shrink(57)], "91 soon, so 11 go");
        assert_eq!(looks(&mut pressure, &[(90, 57)]), [shrink(47)], "nothing came back, so 10 more go");
        assert_eq!(looks(&mut pressure, &[(85, 47), (85, 47), (89, 47)]), [None; 3], "it does not grow");
        assert_eq!(pressure.room(), 47 * MIB);
        // Whatever holds the rest, the cache keeps a little, and is told of nothing further.
        assert_eq!(looks(&mut pressure, &[(100, 34), (100, 14), (100, 1)]), [shrink(14), shrink(1), None]);
        assert!(Pressure::is_short(Reading { limit: 100, held: 90 }));
        assert!(!Pressure::is_short(Reading { limit: 100, held: 89 }));
    }

    #[test]
    fn what_a_cache_grows_by_in_one_look_is_expected_at_the_next_and_of_others_nothing_is() {
        let mut pressure = Pressure::new(1000 * MIB);
        let told = looks(&mut pressure, &[(30, 10), (62, 42)]);
        assert_eq!(told, [None, Some(Change::Shrink(28 * MIB))], "94 soon; at the first look nothing is known");
        let mut pressure = Pressure::new(1000 * MIB);
        assert_eq!(looks(&mut pressure, &[(30, 10), (88, 10), (40, 10)]), [None; 3], "a start, or a reload");
    }

    #[test]
    fn it_grows_again_by_and_by_when_memory_is_easy_for_a_while() {
        let mut pressure = Pressure::new(64 * MIB);
        let grow = |mib| Some(Change::Grow(mib * MIB));
        assert_eq!(looks(&mut pressure, &[(95, 30)]), [Some(Change::Shrink(15 * MIB))]);
        // Between both limits nothing moves, however long.
        assert!(looks(&mut pressure, &[(85, 15); 500]).iter().all(Option::is_none));
        let told = looks(&mut pressure, &[(50, 15); 240]);
        let when: Vec<_> = (1..).zip(&told).filter(|(_, told)| told.is_some()).map(|(at, told)| (at, *told)).collect();
        assert_eq!(when, [(60, grow(30)), (120, grow(60)), (180, grow(64))]);
        // One look that is not easy begins the minute anew.
        assert_eq!(looks(&mut pressure, &[(95, 16)]), [Some(Change::Shrink(MIB))], "96 soon, so 16 go");
        assert!(looks(&mut pressure, &[(50, 1); 59]).iter().all(Option::is_none));
        assert!(looks(&mut pressure, &[(80, 1)]).iter().all(Option::is_none));
        assert!(looks(&mut pressure, &[(50, 1); 59]).iter().all(Option::is_none));
        assert_eq!(looks(&mut pressure, &[(50, 1)]), [grow(2)]);
    }

    #[test]
    fn no_numbers_overflow_and_a_small_cache_is_never_asked_for_more_than_it_has() {
        let mut pressure = Pressure::new(10);
        for reading in [(u64::MAX, u64::MAX), (1, u64::MAX), (0, 0), (u64::MAX, 0), (1, 0)] {
            for weight in [0, 10, u64::MAX] {
                let (limit, held) = reading;
                assert_eq!(pressure.look(Reading { limit, held }, weight), None, "its least is all it has");
            }
        }
        assert_eq!(pressure.room(), 10);
    }
}
