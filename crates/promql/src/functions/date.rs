//! Calendar functions on Unix times, UTC, proleptic Gregorian calendar.

/// From the epoch of Go's `time` package, -292277022400-03-01, to 1970; whole days.
const GO_EPOCH_SECONDS: u64 = 9_223_372_028_741_760_000;

/// A civil date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    /// Days since 1970-01-01.
    days: i64,
}

impl Civil {
    /// The date of a Unix time in seconds.
    pub(crate) fn from_unix_seconds(seconds: i64) -> Self {
        // Go counts seconds from its own epoch in 64 bits without a sign; what lies before wraps around. That decides
        // what the calendar functions make of NaN and of numbers that are no time.
        let absolute = (seconds as u64).wrapping_add(GO_EPOCH_SECONDS);
        let days = (absolute / 86_400) as i64 - (GO_EPOCH_SECONDS / 86_400) as i64;
        let of_day = (absolute % 86_400) as u32;
        // Days counted from 0000-03-01, so that the leap day is the last of its year; eras have 400 years.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Civil { year, month, day, hour: of_day / 3600, minute: of_day / 60 % 60, second: of_day % 60, days }
    }

    fn is_leap(&self) -> bool {
        self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0)
    }

    /// Sunday is 0.
    pub(crate) fn day_of_week(&self) -> u32 {
        (self.days + 4).rem_euclid(7) as u32
    }

    /// January 1st is 1.
    pub(crate) fn day_of_year(&self) -> u32 {
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        BEFORE[self.month as usize - 1] + self.day + u32::from(self.month > 2 && self.is_leap())
    }

    /// Days of the month.
    pub(crate) fn days_in_month(&self) -> u32 {
        match self.month {
            2 => 28 + u32::from(self.is_leap()),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

/// Go's conversion of a float to an integer on amd64: what does not fit becomes the smallest integer.
pub(crate) fn go_float_to_i64(v: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&v) { v as i64 } else { i64::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let at = |s| {
            let c = Civil::from_unix_seconds(s);
            (c.year, c.month, c.day, c.hour, c.minute, c.day_of_week(), c.day_of_year(), c.days_in_month())
        };
        assert_eq!(at(0), (1970, 1, 1, 0, 0, 4, 1, 31));
        assert_eq!(at(-1), (1969, 12, 31, 23, 59, 3, 365, 31));
        assert_eq!(at(1_456_790_399), (2016, 2, 29, 23, 59, 1, 60, 29));
        assert_eq!(at(1_136_239_445), (2006, 1, 2, 22, 4, 1, 2, 31));
        assert_eq!(at(951_782_400), (2000, 2, 29, 0, 0, 2, 60, 29));
        assert_eq!(at(4_107_542_400).2, 1, "2100-03-01");
        // Go 1.26: time.Unix(math.MinInt64, 0).UTC(), which is what NaN becomes.
        assert_eq!(at(i64::MIN), (292_277_026_596, 12, 4, 15, 30, 0, 339, 31));
    }
}
