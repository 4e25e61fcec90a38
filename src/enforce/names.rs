//! What interfaces and nftables tables may be called here.

/// Whether `text` is an interface's name, or with a `*` at its end the beginning of many: 1 to 15 visible characters
/// (IFNAMSIZ is 16 with the NUL) without `/ : " \`, and no other `*`. What the quotes of a script and the nft tool's own
/// wildcard would make something else of is refused, though the kernel takes some of it.
pub fn is_interface(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    let good = |b: u8| b.is_ascii_graphic() && !b"/:*\"\\".contains(&b);
    (1..libc::IFNAMSIZ).contains(&name.len()) && name.bytes().all(good) && name != "." && name != ".."
}

/// Whether `pattern`, an interface's name or with a `*` at its end the beginning of many, stands for `name`, which may be
/// such a pattern itself.
pub fn interface_covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

/// Whether `text` is a table's name: a letter, then up to 63 letters, digits and `_`.
pub fn is_table(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kernel_and_tool_take_alike() {
        for good in ["a", "ag1", "veth-0123456789", "cali*", "eth0.7"] {
            assert!(is_interface(good), "{good}");
        }
        for bad in ["", "*", ".", "..", "a/b", "a:b", "a\"b", "a\\b", "a*b", "a**", "a b", "veth-0123456789a", "\u{e9}"]
        {
            assert!(!is_interface(bad), "{bad}");
        }
        assert!(is_table("staunch_lockdown") && is_table("a"));
        for bad in ["", "1a", "_a", "a-b", "a b", &"a".repeat(65)] {
            assert!(!is_table(bad), "{bad}");
        }
    }
}
