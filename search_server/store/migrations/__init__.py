"""The store's migrations: one file per revision, run by `lossforge db upgrade`."""
