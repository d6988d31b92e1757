-- What became of a notice is kept for a while, and goes as newer ones are settled.
grant delete on control.notice to control_command;
