//! Durations with units, Go style: `500ms`, `1.5s`, `1m30s`, `2h`.
