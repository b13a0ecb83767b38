module gristmill-example

go 1.22
