//! Lists of which the caller sees a part: rows are read until a page is full.

/// A page.
#[derive(Debug)]
pub struct Page<T, C> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; none on the last.
    pub next: Option<C>,
}

/// Rows of one statement.
const ROWS: i64 = 500;

/// Statements for one page. A caller who sees little of much gets short pages with a next one.
const STATEMENTS: usize = 10;

/// A page while it is read.
pub(super) struct Shown<T, C> {
    items: Vec<T>,
    limit: usize,
    before: Option<C>,
    statements: usize,
    ended: bool,
}

impl<T, C: Clone> Shown<T, C> {
    pub fn new(before: Option<C>, limit: i64) -> Self {
        let limit = usize::try_from(limit).unwrap_or_default();
        Self { items: Vec::new(), limit, before, statements: 0, ended: false }
    }

    /// How many rows to read next; none when the page is done.
    pub fn rows(&mut self) -> Option<i64> {
        self.statements += 1;
        let done = self.ended || self.items.len() >= self.limit || self.statements > STATEMENTS;
        (!done).then_some(ROWS)
    }

    /// Behind which row to read.
    pub fn before(&self) -> Option<C> {
        self.before.clone()
    }

    /// Takes the rows that were read: those that are shown, until the page is full.
    pub fn take(&mut self, rows: Vec<T>, key: impl Fn(&T) -> C, shown: impl Fn(T) -> Option<T>) {
        self.ended = i64::try_from(rows.len()).is_ok_and(|len| len < ROWS);
        for row in rows {
            if self.items.len() == self.limit {
                self.ended = false;
                return;
            }
            self.before = Some(key(&row));
            self.items.extend(shown(row));
        }
    }

    pub fn done(self) -> Page<T, C> {
        Page { next: self.before.filter(|_| !self.ended), items: self.items }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of the even numbers below a bound, the greatest first.
    fn pages(bound: i64, limit: i64) -> Vec<Vec<i64>> {
        let mut pages = Vec::new();
        let mut next = None;
        loop {
            let mut page = Shown::new(next, limit);
            while let Some(rows) = page.rows() {
                let from = page.before().unwrap_or(bound);
                let found = (0..from).rev().take(usize::try_from(rows).unwrap()).collect();
                page.take(found, |row| *row, |row| Some(row).filter(|row| row % 2 == 0));
            }
            let Page { items, next: after } = page.done();
            pages.push(items);
            if after.is_none() {
                return pages;
            }
            next = after;
        }
    }

    #[test]
    fn pages_have_every_row_that_is_shown_once() {
        for (bound, limit) in [(0, 3), (5, 3), (6, 3), (2000, 100), (2000, 1000)] {
            let pages = pages(bound, limit);
            let expected: Vec<i64> = (0..bound).rev().filter(|n| n % 2 == 0).collect();
            assert_eq!(pages.concat(), expected);
            assert!(pages.iter().all(|page| page.len() <= usize::try_from(limit).unwrap()));
        }
    }
}
