/* Reads LMDB's file page by page, without LMDB, and checks its structure,
 * because LMDB trusts the bytes it reads. */
#ifndef STORE_INDEX_CHECK_H
#define STORE_INDEX_CHECK_H

/* Blocks; reads all pages in use of <dir>/data.mdb. 0: sound. -EBADMSG:
 * damaged, or written by a machine with another byte order or word size.
 * Others: it could not be read. */
int index_check_pages(const char *dir);

#endif
