//! Commands as documents write them, and what the binary's own help says of each.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::process::Command;

const PROGRAM: &str = "staunch ";

/// The words behind `staunch` wherever a text gives a command: whole between backticks, else to the end of its line, and no
/// further than a remark, a pipe or another command. Where no verb and no option follows, it is the product's name.
pub fn of(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for (at, _) in text.match_indices(PROGRAM.trim_end()) {
        let (before, behind) = (&text[..at], &text[at + PROGRAM.len() - 1..]);
        let quoted = before.ends_with('`');
        let begins =
            quoted || before.is_empty() || before.ends_with(|c: char| c.is_whitespace() || "/(\"'".contains(c));
        if !begins || !behind.starts_with(char::is_whitespace) {
            continue;
        }
        let end = if quoted { behind.find('`') } else { behind.find('\n') };
        let whole = &behind[..end.unwrap_or(behind.len())];
        let end = ["#", ";", " | ", "&&", "\"", "'", "`", ")", ", ", " > ", " \\\n"]
            .iter()
            .filter_map(|stop| whole.find(stop))
            .min();
        let command = whole[..end.unwrap_or(whole.len())].split_whitespace().collect::<Vec<_>>().join(" ");
        // A line of its own, or words in backticks; prose goes on in words that are no command's. A path may stand in front.
        let line = before.rsplit('\n').next().unwrap_or_default();
        let ahead = line.trim_end_matches(|c: char| !c.is_whitespace());
        let ahead = ahead.trim_matches(|c: char| c.is_whitespace() || "$#".contains(c));
        let alone = ahead.is_empty() || ahead.ends_with(" --");
        if (quoted || alone) && command.starts_with(|c: char| c.is_ascii_lowercase() || c == '-') {
            commands.push(command);
        }
    }
    commands
}

/// What one level of the command line takes.
#[derive(Clone)]
struct Level {
    verbs: BTreeSet<String>,
    options: BTreeSet<String>,
}

/// The binary's help, asked once for each verb.
pub struct Help {
    binary: &'static str,
    levels: RefCell<HashMap<String, Option<Level>>>,
}

impl Help {
    pub fn new(binary: &'static str) -> Self {
        Self { binary, levels: RefCell::default() }
    }

    fn level(&self, path: &[&str]) -> Option<Level> {
        let read = || {
            let output = Command::new(self.binary).args(path).arg("--help").output().expect("the binary runs");
            let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
            let verbs = text.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or(""));
            let verb = |line: &str| {
                let word = line.strip_prefix("  ")?.split(' ').next()?;
                (!word.is_empty()).then(|| word.to_owned())
            };
            let options =
                text.split(|c: char| c.is_whitespace() || "=[,".contains(c)).filter(|word| word.starts_with("--"));
            let options = options.map(|word| word.trim_end_matches([']', '.', '`']).to_owned());
            Some(Level { verbs: verbs.lines().filter_map(verb).collect(), options: options.collect() })
        };
        self.levels.borrow_mut().entry(path.join(" ")).or_insert_with(read).clone()
    }

    /// Why a command is none that the binary takes.
    pub fn fault(&self, command: &str) -> Option<String> {
        let mut words = command.split(' ').peekable();
        let mut path: Vec<&str> = Vec::new();
        let mut levels = vec![self.level(&[])?];
        while let Some(word) = words.peek().filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) {
            let level = &levels[levels.len() - 1];
            if level.verbs.is_empty() {
                break;
            }
            // `plan|apply`: each of them, and for what follows the first.
            if let Some(unknown) = word.split('|').find(|verb| !level.verbs.contains(*verb)) {
                return Some(format!("no verb `{unknown}` behind `staunch {}`", path.join(" ")));
            }
            path.extend(word.split('|').next());
            levels.push(self.level(&path)?);
            words.next();
        }
        let known = |option: &str| levels.iter().any(|level| level.options.contains(option));
        let mut options =
            words.flat_map(|word| word.split(['[', ']', '=', ',', '.'])).filter(|word| word.starts_with("--"));
        options
            .find(|option| !known(option))
            .map(|option| format!("no option `{option}` of `staunch {}`", path.join(" ")))
    }
}
