//! Signatures of the room "indexing".

operators! { INDEXING;
}
