//! Escapes by number in zone files, taken care of before the library's parser sees them: it reads `\DDD` as another
//! character than the one meant (RFC 1035 section 5.1).
//!
//! Pure.

/// The text with `\DDD` in quoted strings written as the character itself.
///
/// # Errors
/// The line, from 1, and what is wrong: an octet that the parser cannot be given, since it reads text, or a number that is no
/// octet.
pub(super) fn unescaped(text: &str) -> Result<String, (usize, String)> {
    let mut out = String::with_capacity(text.len());
    let (mut line, mut quoted, mut comment) = (1, false, false);
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '"', ';', '\n']) {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        let mut letters = behind.chars();
        let found = letters.next().unwrap_or_default();
        rest = letters.as_str();
        match found {
            '\n' => (line, comment) = (line + 1, false),
            _ if comment => {}
            '"' => quoted = !quoted,
            ';' => comment = !quoted,
            _ => match rest.as_bytes().first_chunk::<3>().filter(|digits| digits.iter().all(u8::is_ascii_digit)) {
                Some(digits) => {
                    let number = digits.iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
                    let letter = char::from_u32(number).filter(|c| quoted && matches!(c, ' '..='~'));
                    let Some(letter) = letter else {
                        let digits = String::from_utf8_lossy(digits);
                        let what = "only printable ASCII can be written by number, and only between quotation marks";
                        return Err((line, format!("`\\{digits}`: {what}")));
                    };
                    if matches!(letter, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(letter);
                    rest = rest.get(3..).unwrap_or_default();
                    continue;
                }
                None => {
                    // Whatever is escaped is not looked at.
                    out.push('\\');
                    let mut letters = rest.chars();
                    if let Some(escaped) = letters.next() {
                        line += usize::from(escaped == '\n');
                        out.push(escaped);
                    }
                    rest = letters.as_str();
                    continue;
                }
            },
        }
        out.push(found);
    }
    out.push_str(rest);
    Ok(out)
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
            ("a\\.b A 192.0.2.1", "a\\.b A 192.0.2.1"),
        ] {
            assert_eq!(unescaped(text).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn what_the_parser_cannot_be_given_is_told_with_its_line() {
        for text in [r#"a TXT "\200""#, r#"a TXT "\000""#, r#"a TXT "\999""#, r"a\046b A 192.0.2.1", r"a TXT \065"] {
            assert_eq!(unescaped(&format!("\n; \\065\n{text}\n")).map_err(|error| error.0), Err(3), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_numbers_stays_as_it_is(text in "([a-z \"\\n;é]|\\\\[a-z;\"])*") {
            prop_assert_eq!(unescaped(&text), Ok(text));
        }
    }
}
