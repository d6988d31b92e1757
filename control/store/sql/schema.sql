-- :name lock
-- One migration at a time: whether it is this session's turn. Asked again and again, never waited for: a statement that
-- waits keeps its snapshot, and the holder's CREATE INDEX CONCURRENTLY waits for snapshots, which is a deadlock.
-- locks: none
select pg_try_advisory_lock(%(key)s);

-- :name unlock
-- Ends what `lock` began.
-- locks: none
select pg_advisory_unlock(%(key)s);

-- :name has_migrations
-- A row if the control schema was ever migrated here.
-- locks: none
select 1 from pg_tables where schemaname = 'control' and tablename = 'migration';

-- :name applied
-- Version and checksum of each applied migration.
-- locks: none
select version, checksum from control.migration order by version;

-- :name record
-- The migration just applied, in its own transaction.
-- locks: migration
insert into control.migration (version, name, checksum) values (%(version)s, %(name)s, %(sum)s);

-- :name server
-- The process that serves this session, and whether it refuses writes.
-- locks: none
select pg_backend_pid(), pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean;
