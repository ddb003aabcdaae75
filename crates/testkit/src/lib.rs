//! Test helpers: in-process S3 server, faulty bucket, fake clock, series builders, real processes.
