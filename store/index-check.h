/* Reads LMDB's file page by page, without LMDB, and says whether its structure
 * is sound: LMDB itself trusts what it reads. */
#ifndef STORE_INDEX_CHECK_H
#define STORE_INDEX_CHECK_H

/* Blocks; reads all pages in use of <dir>/data.mdb. 0: sound. -EBADMSG:
 * damaged, or not as this machine writes it. Others: it could not be read. */
int index_check_pages(const char *dir);

#endif
