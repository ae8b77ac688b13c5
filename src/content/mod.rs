//! Content: uploads, blobs, manifests, tags, referrers, pins.
