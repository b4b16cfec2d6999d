//! Unified diffs, with which messages show what of an immutable object was changed.
//!
//! Upstream prints both objects as indented JSON and compares the lines as Python's `difflib` does; which lines pair up
//! is visible in the message, so this finds the same blocks: the longest common one first, then left and right of it.

use std::collections::HashMap;

/// Unchanged lines around a change.
const CONTEXT: usize = 3;
/// From this length on, lines that make up more than a hundredth of the text are too common to align by.
const POPULAR_FROM: usize = 200;

/// Two ranges of lines: equal ones, or what was there and what is there now.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Op {
    equal: bool,
    a: (usize, usize),
    b: (usize, usize),
}

/// The unified diff of two texts; empty where they are equal.
pub fn unified(a: &str, b: &str) -> String {
    let a: Vec<&str> = a.split('\n').collect();
    let b: Vec<&str> = b.split('\n').collect();
    let mut out = String::new();
    for group in groups(ops(&a, &b)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (old, new) = (range(first.a.0, last.a.1), range(first.b.0, last.b.1));
        out.push_str(&format!("@@ -{old} +{new} @@\n"));
        let mut lines = |sign: char, lines: &[&str]| {
            for line in lines {
                out.push(sign);
                out.push_str(line);
                out.push('\n');
            }
        };
        for op in &group {
            if op.equal {
                lines(' ', &a[op.a.0..op.a.1]);
            } else {
                lines('-', &a[op.a.0..op.a.1]);
                lines('+', &b[op.b.0..op.b.1]);
            }
        }
    }
    out
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => (start + 1).to_string(),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// Where the lines of `b` stand, without the too common ones.
fn index<'a>(b: &[&'a str]) -> HashMap<&'a str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, line) in b.iter().enumerate() {
        places.entry(line).or_default().push(i);
    }
    if b.len() >= POPULAR_FROM {
        let most = b.len() / 100 + 1;
        places.retain(|_, places| places.len() <= most);
    }
    places
}

/// The longest block of equal lines within the bounds: its start in both texts, and its length.
fn longest(
    a: &[&str],
    b: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (a_low, a_high): (usize, usize),
    (b_low, b_high): (usize, usize),
) -> (usize, usize, usize) {
    let (mut at_a, mut at_b, mut size) = (a_low, b_low, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, line) in a.iter().enumerate().take(a_high).skip(a_low) {
        let mut next = HashMap::new();
        for &j in places.get(line).into_iter().flatten().filter(|j| (b_low..b_high).contains(*j)) {
            let length = 1 + j.checked_sub(1).and_then(|before| lengths.get(&before)).copied().unwrap_or_default();
            next.insert(j, length);
            if length > size {
                (at_a, at_b, size) = (i + 1 - length, j + 1 - length, length);
            }
        }
        lengths = next;
    }
    // Common lines do not start a block, but they may extend one.
    while at_a > a_low && at_b > b_low && a[at_a - 1] == b[at_b - 1] {
        (at_a, at_b, size) = (at_a - 1, at_b - 1, size + 1);
    }
    while at_a + size < a_high && at_b + size < b_high && a[at_a + size] == b[at_b + size] {
        size += 1;
    }
    (at_a, at_b, size)
}

fn blocks(a: &[&str], b: &[&str]) -> Vec<(usize, usize, usize)> {
    let places = index(b);
    let mut found = Vec::new();
    let mut open = vec![((0, a.len()), (0, b.len()))];
    while let Some((in_a, in_b)) = open.pop() {
        let (i, j, size) = longest(a, b, &places, in_a, in_b);
        if size > 0 {
            found.push((i, j, size));
            open.push(((in_a.0, i), (in_b.0, j)));
            open.push(((i + size, in_a.1), (j + size, in_b.1)));
        }
    }
    found.sort_unstable();
    found
}

fn ops(a: &[&str], b: &[&str]) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (at_a, at_b, size) in blocks(a, b).into_iter().chain([(a.len(), b.len(), 0)]) {
        if i < at_a || j < at_b {
            ops.push(Op { equal: false, a: (i, at_a), b: (j, at_b) });
        }
        (i, j) = (at_a + size, at_b + size);
        match ops.last_mut() {
            // Blocks that touch are one.
            Some(last) if size > 0 && last.equal && last.a.1 == at_a && last.b.1 == at_b => {
                (last.a.1, last.b.1) = (i, j)
            }
            _ if size > 0 => ops.push(Op { equal: true, a: (at_a, i), b: (at_b, j) }),
            _ => {}
        }
    }
    ops
}

/// The changes with their context, apart where more than twice the context lies between.
fn groups(mut ops: Vec<Op>) -> Vec<Vec<Op>> {
    if let Some(first) = ops.first_mut().filter(|op| op.equal) {
        first.a.0 = first.a.0.max(first.a.1.saturating_sub(CONTEXT));
        first.b.0 = first.b.0.max(first.b.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = ops.last_mut().filter(|op| op.equal) {
        last.a.1 = last.a.1.min(last.a.0 + CONTEXT);
        last.b.1 = last.b.1.min(last.b.0 + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group: Vec<Op> = Vec::new();
    for mut op in ops {
        if op.equal && op.a.1 - op.a.0 > 2 * CONTEXT {
            let a = (op.a.0, op.a.0 + CONTEXT);
            group.push(Op { equal: true, a, b: (op.b.0, op.b.0 + CONTEXT) });
            groups.push(std::mem::take(&mut group));
            op.a.0 = op.a.1 - CONTEXT;
            op.b.0 = op.b.1 - CONTEXT;
        }
        group.push(op);
    }
    groups.push(group);
    groups.retain(|group| group.iter().any(|op| !op.equal));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_change_is_shown_with_its_surroundings() {
        let a = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12";
        let b = a.replace("\n5\n", "\nfive\n");
        assert_eq!(unified(a, &b), "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
        assert_eq!(unified("a", "a"), "");
        assert_eq!(unified("a\nb", "a\nx\nb"), "@@ -1,2 +1,3 @@\n a\n+x\n b\n");
    }

    #[test]
    fn far_changes_stand_apart() {
        let a: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let mut b = a.clone();
        b[1] = "x".into();
        b[18] = "y".into();
        let text = unified(&a.join("\n"), &b.join("\n"));
        assert_eq!(text.matches("@@ -").count(), 2);
        assert!(text.starts_with("@@ -1,5 +1,5 @@\n 0\n-1\n+x\n"));
    }

    proptest! {
        #[test]
        fn the_new_text_can_be_read_off(a in "[ab\n]{0,30}", b in "[ab\n]{0,30}") {
            let a: Vec<&str> = a.split('\n').collect();
            let b: Vec<&str> = b.split('\n').collect();
            let mut left: Vec<&str> = Vec::new();
            let mut right: Vec<&str> = Vec::new();
            for op in ops(&a, &b) {
                left.extend(&a[op.a.0..op.a.1]);
                right.extend(if op.equal { &a[op.a.0..op.a.1] } else { &b[op.b.0..op.b.1] });
            }
            prop_assert_eq!(left, a);
            prop_assert_eq!(right, b);
        }
    }
}
