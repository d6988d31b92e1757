-- Whoever makes a key for somebody else has had it in hand. What is done with it counts, where it takes two persons, as
-- theirs too. via: those with whose keys a key was made, for whoever made it last is in created_by; created_via and a
-- vote's via: everybody through whose hands the credential went with which the run was started, or the vote was cast.
alter table control.api_key add column via text[] not null default '{}';
alter table control.run add column created_via text[] not null default '{}';
alter table control.vote add column via text[] not null default '{}';
