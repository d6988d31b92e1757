-- With which key a key was made, so that it can be revoked with that one: whoever had the one may have kept the other.
-- Null where its maker had none, and for keys that were made before this.
alter table control.api_key add column made_with text;
alter table control.api_key add foreign key (tenant, made_with) references control.api_key (tenant, key_id);
