-- The Lago organisation that an org is a customer of; '' is the default one (docs/adr/0044).
ALTER TABLE organisations ADD COLUMN organization text NOT NULL DEFAULT '';
