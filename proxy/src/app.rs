//! Makes every part.
