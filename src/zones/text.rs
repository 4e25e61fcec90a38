//! Zone files, made ready for the library's parser: it reads `\DDD` as another character than the one meant (RFC 1035 section
//! 5.1), and knows neither quotation marks between parentheses nor an `@` in a record's data nor an origin that is relative.
//!
//! Pure.

/// The text with `\DDD` in quoted strings written as the character itself, an `@` in data as the origin that it stands for, each
/// `$ORIGIN` whole, and each record on one line; lines stay where they are but for those within parentheses. And whether the
/// parser would have read it as something else. `origin`: the zone's name, with its last dot.
///
/// # Errors
/// The line, from 1, and what is wrong: an octet that the parser cannot be given, since it reads text, a number that is no octet,
/// or parentheses that are no pair.
pub(super) fn made_plain(text: &str, origin: &str) -> Result<(String, bool), (usize, String)> {
    let mut reader = Reader {
        out: String::with_capacity(text.len()),
        origin: origin.into(),
        entry: 0,
        line: 1,
        quoted: false,
        open: None,
        joined: 0,
        differs: false,
    };
    let (mut rest, mut comment) = (text, false);
    while let Some(at) = rest.find(['\\', '"', ';', '\n', '(', ')', '@']) {
        let (before, behind) = rest.split_at(at);
        if !comment || reader.open.is_none() {
            reader.out.push_str(before);
        }
        let mut letters = behind.chars();
        let found = letters.next().unwrap_or_default();
        rest = letters.as_str();
        match found {
            '\n' => {
                comment = false;
                reader.end_line();
            }
            // Of a comment between parentheses nothing may stay: the record goes on behind it.
            _ if comment && reader.open.is_some() => {}
            _ if comment => reader.out.push(found),
            '\\' => rest = reader.escape(rest)?,
            '"' => {
                reader.quoted = !reader.quoted;
                reader.differs |= reader.open.is_some();
                reader.out.push(found);
            }
            _ if reader.quoted => reader.out.push(found),
            '@' => reader.at(rest),
            ';' => {
                comment = true;
                if reader.open.is_none() {
                    reader.out.push(found);
                }
            }
            _ => reader.parenthesis(found)?,
        }
    }
    if !comment || reader.open.is_none() {
        reader.out.push_str(rest);
    }
    match reader.open {
        Some(line) => Err((line, "a parenthesis that is not closed".into())),
        None => Ok((reader.out, reader.differs)),
    }
}

struct Reader {
    out: String,
    /// What names are relative to, with its last dot.
    origin: String,
    /// Where in `out` the record, or directive, begins that is being read.
    entry: usize,
    line: usize,
    quoted: bool,
    /// The line of a parenthesis that is open.
    open: Option<usize>,
    /// Ends of lines that were left out within it.
    joined: usize,
    /// Whether there was anything that the parser would read as something else.
    differs: bool,
}

impl Reader {
    fn end_line(&mut self) {
        self.line += 1;
        if self.open.is_some() && !self.quoted {
            self.joined += 1;
            if self.out.ends_with('\r') {
                self.out.pop();
            }
            return self.out.push(' ');
        }
        if !self.quoted {
            self.follow_origin();
        }
        self.out.push('\n');
        if !self.quoted {
            // What follows stands where it stood.
            self.out.extend(std::iter::repeat_n('\n', std::mem::take(&mut self.joined)));
            self.entry = self.out.len();
        }
    }

    /// The record, or directive, that is being read; a string in it may have several lines.
    fn entry(&self) -> &str {
        self.out.get(self.entry..).unwrap_or_default()
    }

    /// Takes over the origin where a line has set one, and writes it whole, since the parser takes every one for that.
    fn follow_origin(&mut self) {
        let entry = self.entry();
        let mut words = entry.split([' ', '\t', '\r', ';']).filter(|word| !word.is_empty());
        let is_directive = words.next().is_some_and(|word| word.eq_ignore_ascii_case("$ORIGIN"));
        let Some(word) = words.next().filter(|_| is_directive && entry.starts_with('$')) else { return };
        if word.ends_with('.') {
            self.origin = word.into();
            return;
        }
        // Behind the directive, which it is no part of.
        let Some((directive, behind)) = entry.split_at_checked("$ORIGIN".len()) else { return };
        let at = self.out.len() - entry.len() + directive.len() + behind.find(word).unwrap_or(0);
        let whole = match word {
            "@" => self.origin.clone(),
            part if self.origin == "." => format!("{part}."),
            part => format!("{part}.{}", self.origin),
        };
        self.out.replace_range(at..at + word.len(), &whole);
        self.origin = whole;
        self.differs = true;
    }

    /// An `@`, in front of `rest`: in a record's data the origin (RFC 1035 section 5.1), or itself where that is text. As an owner
    /// it is for the parser.
    fn at(&mut self, rest: &str) {
        let entry = self.entry();
        let is_free = entry.ends_with([' ', '\t']) && rest.chars().next().is_none_or(|c| " \t\r\n;()".contains(c));
        let words: Vec<&str> = entry.split_ascii_whitespace().collect();
        if !is_free || words.is_empty() || entry.starts_with('$') {
            return self.out.push('@');
        }
        let behind_owner = usize::from(!entry.starts_with([' ', '\t']));
        let is_text = |word: &&str| ["TXT", "HINFO"].iter().any(|kind| word.eq_ignore_ascii_case(kind));
        let is_text = words.iter().skip(behind_owner).any(is_text);
        self.out.push_str(if is_text { "\"@\"" } else { &self.origin });
        self.differs = true;
    }

    fn parenthesis(&mut self, found: char) -> Result<(), (usize, String)> {
        self.open = match (found, self.open) {
            ('(', None) => Some(self.line),
            (')', Some(_)) => None,
            _ => return Err((self.line, format!("`{found}` is not one of a pair"))),
        };
        self.out.push(' ');
        Ok(())
    }

    /// Reads what is escaped at the beginning of `rest`, and gives what follows.
    fn escape<'t>(&mut self, rest: &'t str) -> Result<&'t str, (usize, String)> {
        let digits = rest.as_bytes().first_chunk::<3>().filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let Some(digits) = digits else {
            // It stands for itself.
            self.out.push('\\');
            let mut letters = rest.chars();
            if let Some(escaped) = letters.next() {
                if escaped == ';' && !self.quoted {
                    return Err((self.line, "`\\;` is read only between quotation marks".into()));
                }
                self.line += usize::from(escaped == '\n');
                self.out.push(escaped);
                if escaped == '\n' && !self.quoted {
                    self.entry = self.out.len();
                }
            }
            return Ok(letters.as_str());
        };
        let number = digits.iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
        let letter = char::from_u32(number).filter(|c| self.quoted && matches!(c, ' '..='~'));
        let Some(letter) = letter else {
            let digits = String::from_utf8_lossy(digits);
            let what = "only printable ASCII can be written by number, and only between quotation marks";
            return Err((self.line, format!("`\\{digits}`: {what}")));
        };
        if matches!(letter, '"' | '\\') {
            self.out.push('\\');
        }
        self.out.push(letter);
        self.differs = true;
        Ok(rest.get(3..).unwrap_or_default())
    }
}

/// The files that a text includes, as written, each with its line. To be asked of a text that was made plain.
pub(super) fn included(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter_map(|(line, text)| {
        let (word, rest) = text.trim_start().split_at_checked("$INCLUDE".len())?;
        let rest = word.eq_ignore_ascii_case("$INCLUDE").then(|| rest.trim_start())?;
        let name = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split([' ', '\t', ';', '\r']).next(),
        };
        Some((line, name.filter(|name| !name.is_empty())?))
    })
}

/// Whether a line of it is an `$ORIGIN`.
pub(super) fn sets_origin(text: &str) -> bool {
    text.lines().any(is_origin)
}

/// Whether what follows this line, from 1, begins with an `$ORIGIN`, or is nothing.
pub(super) fn begins_anew_behind(text: &str, line: usize) -> bool {
    let mut behind =
        text.lines().skip(line).filter(|line| !line.split(';').next().unwrap_or_default().trim().is_empty());
    behind.next().is_none_or(is_origin)
}

fn is_origin(line: &str) -> bool {
    line.trim_start().split([' ', '\t']).next().is_some_and(|word| word.eq_ignore_ascii_case("$ORIGIN"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_in_a_string_is_the_character_it_stands_for() {
        for (text, read) in [
            (r#"a TXT "\065\032b""#, r#"a TXT "A b""#),
            (r#"a TXT "\034\092\059""#, r#"a TXT "\"\\;""#),
            (r#"a TXT "v=1\; p" ; "\200"#, r#"a TXT "v=1\; p" ; "\200"#),
            (r#"a TXT "\\065""#, r#"a TXT "\\065""#),
            (
                "a TXT ( \"p=b; c\" ; why (\n \"d e\" )\nb A 192.0.2.1",
                "a TXT   \"p=b; c\"   \"d e\"  \n\nb A 192.0.2.1",
            ),
            ("a TXT \"( ; )\" ; (\nb", "a TXT \"( ; )\" ; (\nb"),
            ("@ SOA a b (\r\n 1\r\n 2 )\r\nb A", "@ SOA a b    1  2  \r\n\n\nb A"),
            ("a\\.b A 192.0.2.1", "a\\.b A 192.0.2.1"),
        ] {
            assert_eq!(made_plain(text, "z.test.").map(|(text, _)| text).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn an_at_in_data_is_the_origin() {
        for (text, read) in [
            ("@ SOA @ h ( 1\n@ )", "@ SOA z.test. h   1 z.test.  "),
            ("a CNAME @\n 5 MX 10 @;b", "a CNAME z.test.\n 5 MX 10 z.test.;b"),
            (
                "$ORIGIN b ; c\n@ NS @\n$origin c.test.\nd NS @",
                "$ORIGIN b.z.test. ; c\n@ NS b.z.test.\n$origin c.test.\nd NS c.test.",
            ),
            ("txt CNAME @\na TXT @ \"@\" x@y", "txt CNAME z.test.\na TXT \"@\" \"@\" x@y"),
            ("a NS @b\na NS b@ ; @\n$ORIGIN @\n", "a NS @b\na NS b@ ; @\n$ORIGIN z.test.\n"),
            ("; $ORIGIN b\na NS @", "; $ORIGIN b\na NS z.test."),
            ("$ORIGIN o\n$Origin\tr\r\nb A", "$ORIGIN o.z.test.\n$Origin\tr.o.z.test.\r\nb A"),
            ("a TXT \"b\n$ORIGIN c\"\nd NS @", "a TXT \"b\n$ORIGIN c\"\nd NS z.test."),
            ("a TXT \"b\nc\" @", "a TXT \"b\nc\" \"@\""),
        ] {
            assert_eq!(made_plain(text, "z.test.").map(|(text, _)| text).as_deref(), Ok(read), "{text}");
        }
        assert_eq!(made_plain("a NS @", "."), Ok(("a NS .".into(), true)));
        assert_eq!(made_plain("$ORIGIN a\nb NS @", "."), Ok(("$ORIGIN a.\nb NS a.".into(), true)));
    }

    #[test]
    fn what_the_parser_cannot_be_given_is_told_with_its_line() {
        for text in [
            r#"a TXT "\200""#,
            r#"a TXT "\000""#,
            r#"a TXT "\999""#,
            r"a\046b A 192.0.2.1",
            r"a TXT \065",
            "a TXT ( b",
            "b )",
            r"a TXT b\;c",
        ] {
            assert_eq!(
                made_plain(&format!("\n; \\065\n{text}\n"), "z.test.").map_err(|error| error.0),
                Err(3),
                "{text}"
            );
        }
    }

    #[test]
    fn included_files_are_found() {
        let text = "$TTL 5\n $include \"a.zone\" x.test.\nb TXT \"$INCLUDE c\"\n$INCLUDE d ; e\n";
        assert_eq!(included(text).collect::<Vec<_>>(), [(2, "a.zone"), (4, "d")]);
        let odd = "$INCLUDE a;b\n$INCLUDE\"c d\"\n$INCLUDE\n$INCLUDE e\r\n";
        assert_eq!(included(odd).collect::<Vec<_>>(), [(1, "a"), (2, "c d"), (4, "e")]);
    }

    #[test]
    fn what_follows_a_line_may_begin_with_an_origin() {
        for (behind, anew) in [
            ("", true),
            ("\n ; c\n\t\n", true),
            ("; c\n $origin\ta.test.\nb A", true),
            ("b A\n$ORIGIN a.", false),
            ("$ORIGINAL A", false),
        ] {
            assert_eq!(begins_anew_behind(&format!("a A\n$INCLUDE b\n{behind}"), 2), anew, "{behind}");
            assert_eq!(sets_origin(behind), behind.contains("a."), "{behind}");
        }
    }

    proptest! {
        #[test]
        fn text_without_numbers_stays_as_it_is(text in "([a-z \"\\n;é]|\\\\[a-z\"])*") {
            prop_assert_eq!(made_plain(&text, "z.test."), Ok((text, false)));
        }
    }
}
