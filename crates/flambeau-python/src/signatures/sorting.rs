//! Signatures of the room "sorting".

operators! { SORTING;
}
